// Vercel's AI SDK with its package for Cohere: embeddings, reranking, chat, tools and errors.
import { readFileSync } from "node:fs";
import assert from "node:assert/strict";
import { createCohere } from "@ai-sdk/cohere";
import { APICallError, embed, embedMany, generateText, jsonSchema, rerank, streamText, tool } from "ai";

const { HUBGATE_URL: url, HUBGATE_KEY: key, HUBGATE_SPENT_KEY: spentKey } = process.env;
const { texts, vectors } = JSON.parse(readFileSync(process.env.HUBGATE_EXPECTED, "utf8"));
const packages = JSON.parse(readFileSync(new URL("./package.json", import.meta.url))).dependencies;
console.log("version:", Object.entries(packages).map(([name, version]) => `${name} ${version.replace("^", "")}`).join(", "));
const passed = (what) => console.log("ok:", what);

const cohere = createCohere({ baseURL: `${url}/v2`, apiKey: key });
for (const [name, expected] of Object.entries(vectors)) {
  const { embeddings, usage } = await embedMany({ model: cohere.embeddingModel(name), values: texts });
  const far = embeddings.flat().some((number, index) => Math.abs(number - expected.flat()[index]) > 1e-5);
  assert.ok(!far, name);
  assert.ok(usage.tokens > 0);
  passed(`embedMany [${name}]`);
}
const { ranking } = await rerank({
  model: cohere.rerankingModel("ranker"),
  query: "a gate",
  documents: ["a harbour", "a gate"],
  topN: 1,
});
assert.equal(ranking.length, 1);
passed("rerank");

const llm = { model: cohere("llm"), prompt: "good morning", maxRetries: 0 };
const generated = await generateText(llm);
assert.equal(generated.text, "You said: good morning");
assert.equal(generated.finishReason, "stop");
passed("generateText");
const streamed = streamText(llm);
let text = "";
for await (const part of streamed.textStream) text += part;
assert.equal(text, "You said: good morning");
assert.ok((await streamed.usage).outputTokens > 0);
passed("streamText");

const weather = tool({
  description: "The weather of a city.",
  inputSchema: jsonSchema({ type: "object", properties: { city: { type: "string" } }, required: ["city"] }),
});
const called = await generateText({ ...llm, tools: { weather }, toolChoice: "required" });
assert.equal(called.toolCalls[0]?.toolName, "weather");
passed("tools");
const calling = streamText({ ...llm, tools: { weather }, toolChoice: "required" });
assert.equal((await calling.toolCalls)[0]?.toolName, "weather");
passed("tools in a stream");

const failing = async (status, words, apiKey, model, value = "a") => {
  const client = createCohere({ baseURL: `${url}/v2`, apiKey });
  const error = await embed({ model: client.embeddingModel(model), value, maxRetries: 0 }).then(
    () => assert.fail(`${words}: it was not refused`),
    (reason) => reason,
  );
  assert.ok(APICallError.isInstance(error), error);
  assert.equal(error.statusCode, status);
  assert.ok(error.message.includes(words), error.message);
  passed(`its error shows: ${words}`);
};
await failing(400, "[texts[0]] is an empty string", key, "fake", "");
await failing(401, "key", "wrong", "fake");
await failing(404, "[none]", key, "none");
const first = createCohere({ baseURL: `${url}/v2`, apiKey: spentKey });
await embed({ model: first.embeddingModel("fake"), value: "a" });
await failing(429, "limit", spentKey, "fake");
await failing(500, "server", key, "gone");
