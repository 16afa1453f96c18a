// @huggingface/inference against a gate. On its input {url, key, prompt, modules}; on its output what was told.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const asked = JSON.parse(readFileSync(0, "utf8"));
const find = createRequire(asked.modules + "/");
const { InferenceClient } = await import(pathToFileURL(find.resolve("@huggingface/inference")));

const at = (name) => new InferenceClient(asked.key, { endpointUrl: `${asked.url}/hf/${name}` });
const messages = [{ role: "user", content: asked.prompt }];
const writer = at("vllm");
const told = {};

told.generated = (await writer.textGeneration({ inputs: asked.prompt })).generated_text;
told.streamed = "";
for await (const event of writer.textGenerationStream({ inputs: asked.prompt })) {
  told.streamed += event.choices ? event.choices[0]?.text ?? "" : event.token.special ? "" : event.token.text;
}
told.chatted = (await writer.chatCompletion({ messages })).choices[0].message.content;
told.chatStreamed = "";
for await (const chunk of writer.chatCompletionStream({ messages })) {
  told.chatStreamed += chunk.choices[0]?.delta.content ?? "";
}
told.dimensions = (await at("fake").featureExtraction({ inputs: ["a", "b"] })).map((vector) => vector.length);
const compared = { source_sentence: "a", sentences: ["a"] };
told.similar = await at("fake").sentenceSimilarity({ inputs: compared });
try {
  await at("fake").featureExtraction({ inputs: [] });
} catch (error) {
  told.error = error.httpResponse?.body?.error ?? error.message;
}
try {
  await at("fake").chatCompletion({ messages });
} catch (error) {
  told.chatError = error.httpResponse?.body?.error ?? error.message;
}
console.log(JSON.stringify(told));
