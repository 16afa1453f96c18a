// Cohere's own JavaScript client, and LangChain.js's package for it.
import { readFileSync } from "node:fs";
import assert from "node:assert/strict";
import { CohereEmbeddings, CohereRerank } from "@langchain/cohere";
import { CohereClient, CohereClientV2, CohereError } from "cohere-ai";

const { HUBGATE_URL: url, HUBGATE_KEY: key } = process.env;
const { texts, vectors } = JSON.parse(readFileSync(process.env.HUBGATE_EXPECTED, "utf8"));
const packages = JSON.parse(readFileSync(new URL("./package.json", import.meta.url))).dependencies;
console.log("version:", Object.entries(packages).map(([name, version]) => `${name} ${version.replace("^", "")}`).join(", "));
const passed = (what) => console.log("ok:", what);
const same = (name, got, what) => {
  const far = got.flat().some((number, index) => Math.abs(number - vectors[name].flat()[index]) > 1e-5);
  assert.ok(!far, `${what} [${name}]`);
  passed(`${what} [${name}]`);
};

const one = new CohereClient({ token: key, environment: url });
const two = new CohereClientV2({ token: key, environment: url });
for (const name of Object.keys(vectors)) {
  const asked = { model: name, texts, inputType: "search_document" };
  same(name, (await one.embed(asked)).embeddings, "v1 embed");
  same(name, (await two.embed({ ...asked, embeddingTypes: ["float"] })).embeddings.float, "v2 embed");
  const langchain = new CohereEmbeddings({ model: name, client: one });
  same(name, await langchain.embedDocuments(texts), "@langchain/cohere embedDocuments");
}
const documents = ["a harbour", "a gate"];
const ranked = await two.rerank({ model: "ranker", query: "a gate", documents, topN: 1 });
assert.equal(ranked.results[0].index, 1);
const reranker = new CohereRerank({ model: "ranker", client: one, topN: 1 });
assert.equal((await reranker.rerank(documents, "a gate"))[0].index, 1);
passed("rerank");
const messages = [{ role: "user", content: "good morning" }];
const chat = await two.chat({ model: "llm", messages });
assert.equal(chat.message.content[0].text, "You said: good morning");
let text = "";
for await (const event of await two.chatStream({ model: "llm", messages })) {
  if (event.type === "content-delta") text += event.delta.message.content.text;
}
assert.equal(text, "You said: good morning");
passed("v2 chat and stream");

const failing = (model, apiKey = key) =>
  new CohereClientV2({ token: apiKey, environment: url }).embed(
    { model, texts: ["a"], inputType: "search_query", embeddingTypes: ["float"] },
    { maxRetries: 0 },
  );
for (const [status, promise] of [[401, failing("fake", "wrong")], [404, failing("none")], [500, failing("gone")]]) {
  await assert.rejects(promise, (error) => error instanceof CohereError && error.statusCode === status);
}
passed("its errors: 401, 404, 500");
