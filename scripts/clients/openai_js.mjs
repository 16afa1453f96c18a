// OpenAI's own JavaScript client, LangChain.js and the AI SDK's package for compatible servers.
import { readFileSync } from "node:fs";
import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { ChatOpenAI, OpenAIEmbeddings } from "@langchain/openai";
import { embedMany, generateText, streamText } from "ai";
import OpenAI from "openai";

const { HUBGATE_URL: url, HUBGATE_KEY: key, HUBGATE_SPENT_KEY: spentKey } = process.env;
const { texts, vectors } = JSON.parse(readFileSync(process.env.HUBGATE_EXPECTED, "utf8"));
const packages = JSON.parse(readFileSync(new URL("./package.json", import.meta.url))).dependencies;
console.log("version:", Object.entries(packages).map(([name, version]) => `${name} ${version.replace("^", "")}`).join(", "));
const passed = (what) => console.log("ok:", what);
const same = (name, got, what) => {
  const far = got.flat().some((number, index) => Math.abs(number - vectors[name].flat()[index]) > 1e-5);
  assert.ok(!far, `${what} [${name}]`);
  passed(`${what} [${name}]`);
};
const base = `${url}/v1`, prompt = "good morning", said = "You said: good morning";

const openai = new OpenAI({ baseURL: base, apiKey: key, maxRetries: 0 });
const compatible = createOpenAICompatible({ name: "hubgate", baseURL: base, apiKey: key });
for (const name of Object.keys(vectors)) {
  const reply = await openai.embeddings.create({ model: name, input: texts });
  same(name, reply.data.map((one) => one.embedding), "openai embeddings");
  const langchain = new OpenAIEmbeddings({ model: name, apiKey: key, configuration: { baseURL: base } });
  same(name, await langchain.embedDocuments(texts), "@langchain/openai embedDocuments");
  const many = await embedMany({ model: compatible.textEmbeddingModel(name), values: texts });
  same(name, many.embeddings, "openai-compatible embedMany");
}

const messages = [{ role: "user", content: prompt }];
const chat = await openai.chat.completions.create({ model: "llm", messages });
assert.equal(chat.choices[0].message.content, said);
let text = "";
for await (const part of await openai.chat.completions.create({ model: "llm", messages, stream: true })) {
  text += part.choices[0]?.delta?.content ?? "";
}
assert.equal(text, said);
passed("openai chat and stream");
const langchain = new ChatOpenAI({ model: "llm", apiKey: key, configuration: { baseURL: base } });
assert.equal((await langchain.invoke(prompt)).content, said);
passed("@langchain/openai chat");
assert.equal((await generateText({ model: compatible("llm"), prompt })).text, said);
text = "";
for await (const part of streamText({ model: compatible("llm"), prompt }).textStream) text += part;
assert.equal(text, said);
passed("openai-compatible generateText and streamText");

const failing = async (kind, words, apiKey, model, input = "a") => {
  const client = new OpenAI({ baseURL: base, apiKey, maxRetries: 0 });
  await assert.rejects(client.embeddings.create({ model, input }), (error) => {
    assert.ok(error instanceof kind, String(error));
    assert.ok(error.message.includes(words), error.message);
    return true;
  });
  passed(`its error shows: ${words}`);
};
await failing(OpenAI.BadRequestError, "[input] is an empty string", key, "fake", "");
await failing(OpenAI.AuthenticationError, "key", "wrong", "fake");
await failing(OpenAI.NotFoundError, "[none]", key, "none");
await new OpenAI({ baseURL: base, apiKey: spentKey }).embeddings.create({ model: "fake", input: "a" });
await failing(OpenAI.RateLimitError, "limit", spentKey, "fake");
await failing(OpenAI.InternalServerError, "server", key, "gone");
