// Asks a server through the SDK of OpenAI for JavaScript: `check_clients.mjs ADDRESS PICTURES`, beside its node_modules.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const [address, pictures] = process.argv.slice(2);
const OpenAI = createRequire(join(process.cwd(), "package.json"))("openai");
const client = new OpenAI({ baseURL: `${address}/v1`, apiKey: "s3cret", maxRetries: 0 });

const url = `data:image/png;base64,${readFileSync(join(pictures, "turtle.png")).toString("base64")}`;
const messages = [{ role: "user", content: [{ type: "image_url", image_url: { url } }] }];

const answer = await client.chat.completions.create({ model: "multiway:caption", messages });
assert.equal(answer.choices[0].message.content, "turtle");

let text = "";
const stream = await client.chat.completions.create({ model: "multiway:caption", messages, stream: true });
for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? "";
assert.equal(text, "turtle");

const input = [{ role: "user", content: [{ type: "input_image", image_url: url, detail: "auto" }] }];
const response = await client.responses.create({ model: "multiway:caption", input });
assert.equal(response.output_text, "turtle");
assert.equal(response.status, "completed");

const names = [];
let told = "";
for await (const event of await client.responses.create({ model: "multiway:caption", input, stream: true })) {
    assert.equal(event.sequence_number, names.length);
    names.push(event.type);
    if (event.type === "response.output_text.delta") told += event.delta;
}
assert.equal(told, "turtle");
assert.deepEqual([names[0], names.at(-1)], ["response.created", "response.completed"]);

const choices = [{ value: "turtle" }, { value: "guitar" }];
const questions = [
    { type: "choice", name: "shown", instructions: "what is this?", choices },
    { type: "predicate", instructions: "is it an animal?" },
];
const decision = await client.decisions.create({ model: "multiway", input, questions });
const [shown] = decision.answers;
const most = shown.probabilities.reduce((best, next) => (next.probability > best.probability ? next : best));
assert.equal(shown.choice, most.value);
assert.ok(Math.abs(shown.probabilities.reduce((sum, { probability }) => sum + probability, 0) - 1) < 1e-6);
assert.ok(decision.answers[1].probability >= 0 && decision.answers[1].probability <= 1);
await assert.rejects(client.decisions.create({ model: "multiway", input, questions: [] }), { status: 400 });

const vectors = await client.embeddings.create({ model: "multiway", input: ["a cat", "a dog"] });
assert.equal(vectors.data[1].embedding.length, 256);

await assert.rejects(client.chat.completions.create({ model: "nothing", messages }), { status: 404 });
