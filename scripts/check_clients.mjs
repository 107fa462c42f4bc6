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

const vectors = await client.embeddings.create({ model: "multiway", input: ["a cat", "a dog"] });
assert.equal(vectors.data[1].embedding.length, 256);

await assert.rejects(client.chat.completions.create({ model: "nothing", messages }), { status: 404 });
