// Vercel's AI SDK with its packages for OpenAI and Hugging Face, whose default is the Responses API.
import { readFileSync } from "node:fs";
import assert from "node:assert/strict";
import { createHuggingFace } from "@ai-sdk/huggingface";
import { createOpenAI } from "@ai-sdk/openai";
import { APICallError, generateText, jsonSchema, Output, stepCountIs, streamText, tool } from "ai";

globalThis.AI_SDK_LOG_WARNINGS = false;
const { HUBGATE_URL: url, HUBGATE_KEY: key, HUBGATE_SPENT_KEY: spentKey } = process.env;
const packages = JSON.parse(readFileSync(new URL("./package.json", import.meta.url))).dependencies;
console.log("version:", Object.entries(packages).map(([name, version]) => `${name} ${version.replace("^", "")}`).join(", "));
const prompt = "good morning";
const said = "You said: good morning";
const note = tool({
  description: "Note a text.",
  inputSchema: jsonSchema({ type: "object", properties: { text: { type: "string" } }, required: ["text"] }),
  execute: async ({ text }) => `noted ${text}`,
});
const schema = jsonSchema({ type: "object", properties: { schema: { type: "object" } } });

for (const [provider, create] of Object.entries({ openai: createOpenAI, huggingface: createHuggingFace })) {
  const passed = (what) => console.log("ok:", provider, what);
  const at = (name, apiKey = key) => create({ baseURL: `${url}/v1`, apiKey })(name);
  const asked = { model: at("llm"), maxRetries: 0 };
  const generated = await generateText({ ...asked, system: "Be brief.", prompt });
  assert.deepEqual([generated.text, generated.finishReason, generated.usage.totalTokens], [said, "stop", 6]);
  passed("generateText");
  const turns = [{ role: "user", content: "a" }, { role: "assistant", content: "b" }, { role: "user", content: prompt }];
  assert.equal((await generateText({ ...asked, messages: turns })).text, said);
  passed("a conversation");
  const streamed = streamText({ ...asked, prompt });
  let text = "";
  for await (const part of streamed.textStream) text += part;
  assert.deepEqual([text, (await streamed.usage).totalTokens], [said, 6]);
  passed("streamText");
  const called = await generateText({ ...asked, prompt, tools: { note } });
  assert.deepEqual(called.toolCalls[0]?.input, { text: prompt });
  passed("tools");
  const object = await generateText({ ...asked, prompt, output: Output.object({ schema }), maxOutputTokens: 200 });
  assert.ok(object.output.schema);
  passed("structured output");
  if (provider === "openai") { // the other package sends no results of tools
    const steps = { ...asked, prompt, tools: { note }, stopWhen: stepCountIs(3) };
    assert.equal((await generateText(steps)).text, `You said: noted ${prompt}`);
    let whole = "";
    for await (const part of streamText(steps).textStream) whole += part;
    assert.equal(whole, `You said: noted ${prompt}`);
    passed("tools in several steps");
  }
  const failing = async (status, model) => {
    const error = await generateText({ model, prompt, maxRetries: 0 }).then(
      () => assert.fail(`not a ${status}`),
      (reason) => reason,
    );
    assert.ok(APICallError.isInstance(error), error);
    assert.equal(error.statusCode, status);
    passed(`${error.name} ${status}: ${error.message}`);
  };
  await failing(400, at("fake"));
  await failing(401, at("llm", "wrong"));
  await failing(404, at("none"));
  await failing(502, at("gone-llm"));
  if (provider === "openai") await generateText({ ...asked, model: at("llm", spentKey), prompt });
  await failing(429, at("llm", spentKey));
}
