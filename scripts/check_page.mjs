// Uses the web page in Chromium: `check_page.mjs ADDRESS ADDRESS_WITH_KEY PICTURES SCREENSHOTS`, beside its node_modules.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [address, keyedAddress, pictures, screenshots] = process.argv.slice(2);
const require = createRequire(join(process.cwd(), "package.json"));
const { default: puppeteer } = await import(pathToFileURL(require.resolve("puppeteer-core")));

const KEY = "s3cret";
const WIDE = { width: 1280, height: 800 };
const CONTRAST = 4.5;
// A layout shift up to which Chromium's own report calls a page good is 0.1.
const LARGEST_SHIFT = 0.01;

const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM,
  args: ["--no-sandbox", "--disable-gpu", "--font-render-hinting=none"],
});

const dataUrl = (name) => `data:image/png;base64,${readFileSync(join(pictures, name)).toString("base64")}`;

/** Asks the server without the page. */
async function ask(route, body, base = address) {
  const headers = { authorization: `Bearer ${KEY}` };
  const options = body === undefined ? { headers } : { method: "POST", body: JSON.stringify(body), headers };
  const answer = await fetch(new URL(route, base), options);
  return answer.json();
}

/** Opens the page; what it complains of, and what it asks of others than the server, is collected in `page.wrong`. */
async function open(base, { view = "", viewport = WIDE, statuses = [], colors = "light", password = null } = {}) {
  const context = await browser.createBrowserContext();
  const page = await context.newPage();
  page.wrong = [];
  page.on("pageerror", (error) => page.wrong.push(`error: ${error.message}`));
  page.on("console", (message) => {
    const isStatus = message.text().startsWith("Failed to load resource");
    if (["error", "warn"].includes(message.type()) && !isStatus) page.wrong.push(`console: ${message.text()}`);
  });
  page.on("requestfailed", (request) => page.wrong.push(`failed: ${request.url().slice(0, 80)}`));
  page.on("request", (request) => {
    const { protocol, href } = new URL(request.url());
    if (protocol.startsWith("http") && !href.startsWith(base)) page.wrong.push(`elsewhere: ${href}`);
  });
  page.on("response", (response) => {
    if (response.status() >= 400 && !statuses.includes(response.status()))
      page.wrong.push(`status ${response.status()}: ${response.url()}`);
  });
  // The page itself may be behind a key, too, which browsers ask for as a password.
  if (password) await page.authenticate({ username: "", password });
  await page.setViewport(viewport);
  await page.emulateMediaFeatures([
    { name: "prefers-color-scheme", value: colors },
    { name: "prefers-reduced-motion", value: "reduce" },
  ]);
  await page.evaluateOnNewDocument(watch);
  await page.goto(base + view, { waitUntil: "networkidle0" });
  return page;
}

/** Runs in the page before its scripts: sums layout shifts, and lets events of a stream wait while `window.slow` is set. */
function watch() {
  window.shifted = 0;
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifted += entry.value;
  }).observe({ type: "layout-shift", buffered: true });
  const fetched = window.fetch.bind(window);
  window.fetch = async (...asked) => {
    const response = await fetched(...asked);
    if (!window.slow || !response.headers.get("content-type")?.includes("event-stream")) return response;
    const wait = () => new Promise((resolve) => setTimeout(resolve, window.slow));
    let rest = "";
    const slowed = new TransformStream({
      start(controller) {
        asked[1]?.signal?.addEventListener("abort", () => controller.error(asked[1].signal.reason));
      },
      async transform(text, controller) {
        const all = (rest + text).split("\n\n");
        rest = all.pop();
        for (const event of all) {
          controller.enqueue(`${event}\n\n`);
          await wait();
        }
      },
    });
    const body = response.body
      .pipeThrough(new TextDecoderStream())
      .pipeThrough(slowed)
      .pipeThrough(new TextEncoderStream());
    return new Response(body, { status: response.status, headers: response.headers });
  };
}

/** Closes the page; nothing may have gone wrong in it. */
async function close(page) {
  assert.deepEqual(page.wrong, []);
  await page.browserContext().close();
}

const text = (page, selector) => page.$eval(selector, (element) => element.textContent);
const focused = (page) =>
  page.evaluate(() => (document.activeElement.type === "file" ? "file" : document.activeElement.id));

/** Waits until the text of an element is as expected. */
async function waitForText(page, selector, expected) {
  const fits = (selector, expected) => document.querySelector(selector)?.textContent.match(expected);
  await page.waitForFunction(fits, { timeout: 15_000 }, selector, expected);
}

async function choose(page, ...names) {
  const input = await page.$("#fields .file");
  await input.uploadFile(...names.map((name) => join(pictures, name)));
  await page.waitForSelector("#fields .thumb");
}

async function fill(page, selector, value) {
  await page.$eval(selector, (element) => (element.value = ""));
  await page.type(selector, value);
}

async function run(page) {
  await page.click("#run");
  await waitForText(page, "#status", "^(Done|Failed)");
}

async function shoot(page, name) {
  await page.mouse.move(0, 0);
  const code = await text(page, "#code-text");
  const shown = code.replace(new URL(address).host, "127.0.0.1:8000");
  const prepare = (code) => {
    window.scrollTo(0, 0);
    document.querySelector("#code-text").textContent = code;
  };
  await page.evaluate(prepare, shown);
  await page.screenshot({ path: join(screenshots, `${name}.png`) });
  await page.evaluate(prepare, code);
}

/** Answers a route in place of the server. */
async function answerWith(page, route, reply) {
  await page.setRequestInterception(true);
  page.on("request", (request) => {
    const isMeant = new URL(request.url()).pathname.endsWith(route);
    if (isMeant) request.respond(reply);
    else request.continue();
  });
}

async function theCaptionStreams() {
  const expected = await ask("v1/tasks/caption", { inputs: { image: dataUrl("cat.png") } });
  const page = await open(address);
  assert.equal(await text(page, "#task-name"), "caption");
  const policy = (await fetch(address)).headers.get("content-security-policy") ?? "";
  assert.match(policy, /default-src 'self'/);
  await choose(page, "cat.png");
  await page.evaluate(() => (window.slow = 60));
  await page.click("#run");
  const seen = new Set();
  while (!(await text(page, "#status")).startsWith("Done")) {
    const written = await page.$eval(".streaming", (element) => element.textContent).catch(() => "");
    if (written) seen.add(written);
  }
  assert.equal(await text(page, ".answer-text"), expected.text);
  for (const written of seen) assert.ok(expected.text.startsWith(written), written);
  assert.ok(seen.size > 1, "the answer came at once");
  assert.match(await text(page, ".usage"), new RegExp(`${expected.usage.image_patches} patches`));
  assert.ok((await page.evaluate(() => window.shifted)) < LARGEST_SHIFT, "the layout shifted");
  await close(page);
}

async function theAnswerCanBeStopped() {
  const page = await open(address);
  await choose(page, "turtle.png");
  await page.evaluate(() => (window.slow = 700));
  await page.click("#run");
  await page.waitForFunction(() => document.querySelector(".streaming")?.textContent.length > 2);
  await shoot(page, "page-stream");
  await page.focus("#stop");
  await page.keyboard.press("Enter");
  await waitForText(page, "#status", "^Stopped$");
  assert.equal(await focused(page), "run");
  page.wrong = page.wrong.filter((line) => !line.startsWith("failed:"));
  await close(page);
}

async function choicesAreBars() {
  const choices = ["dog", "cat", "horse", "guitar", "bicycle"];
  const expected = await ask("v1/tasks/classify", { inputs: { image: dataUrl("dog.png"), choices } });
  const page = await open(address, { view: "#task=classify" });
  await choose(page, "dog.png");
  await fill(page, ".field-list textarea", "dog, cat, horse, guitar, bicycle");
  await page.click(".count-row .link");
  await run(page);
  const bars = await page.$$eval(".bar-row", (rows) =>
    rows.map((row) => ({
      text: row.querySelector(".bar-text").textContent,
      probability: Number(row.querySelector("data").value),
      width: parseFloat(row.querySelector(".bar-fill").style.width) / 100,
    })),
  );
  assert.deepEqual(
    bars.map(({ text, probability }) => ({ text, probability })),
    expected.choices,
  );
  for (const { width, probability } of bars) assert.ok(Math.abs(width - probability) < 1e-4);
  await shoot(page, "page-task");
  await codeGivesTheSameAnswer(page, expected, "dog.png");
  await close(page);
}

/** Runs what the page shows as curl and as Python, beside a file of the name that stands in it. */
async function codeGivesTheSameAnswer(page, expected, picture) {
  const folder = mkdtempSync(join(tmpdir(), "page-"));
  copyFileSync(join(pictures, picture), join(folder, "picture.png"));
  const curl = execFileSync("sh", ["-c", await text(page, "#code-text")], {
    cwd: folder,
    stdio: ["ignore", "pipe", "ignore"],
  });
  assert.deepEqual(JSON.parse(curl), expected);
  await page.click("#code-python");
  const script = (await text(page, "#code-text")).replace(
    "print(json.load(answer))",
    "print(json.dumps(json.load(answer)))",
  );
  const python = execFileSync("python3", ["-c", script], { cwd: folder });
  assert.deepEqual(JSON.parse(python), expected);
  rmSync(folder, { recursive: true });
}

async function boxesAreDrawn() {
  const page = await open(address, { view: "#task=detect" });
  await choose(page, "dog-and-apple.png");
  await fill(page, ".field-list textarea", "dog\napple\nsun");
  await run(page);
  const inputs = { image: dataUrl("dog-and-apple.png"), objects: ["dog", "apple", "sun"] };
  const { boxes } = await ask("v1/tasks/detect", { inputs });
  const drawn = await page.$$eval(".form", (forms) => forms.length);
  assert.equal(drawn, boxes.filter(({ fractions }) => fractions.length > 0).length);
  if (drawn > 0) await shoot(page, "page-boxes");

  // What a model that was trained on the task answers.
  const box = (label, pixels) => ({ label, pixels, fractions: pixels.map((side) => side / 160), raw: label });
  const found = [box("dog", [13, 81, 72, 142]), box("apple", [94, 86, 146, 143]), box("sun", [88, 12, 137, 61])];
  const wrong = { label: "moon", pixels: [], fractions: [], raw: "moon", problem: "expected 4 locations, found 0" };
  const outcome = {
    task: "detect",
    text: "dog",
    boxes: [...found, wrong],
    finish_reason: "stop",
    usage: { prompt_tokens: 11, image_patches: 64, new_tokens: 19 },
  };
  const body = `data: ${JSON.stringify({ type: "finished", outcome })}\n\ndata: [DONE]\n\n`;
  await answerWith(page, "/v1/tasks/detect", { contentType: "text/event-stream", body });
  await run(page);
  await page.waitForSelector(".form-label");
  const places = await page.evaluate(() => {
    const frame = document.querySelector(".frame").getBoundingClientRect();
    const lines = [...document.querySelectorAll("rect.form-line")].map((line) => line.getBoundingClientRect());
    return lines.map(({ left, top, right, bottom }) => [
      (left - frame.left) / frame.width,
      (top - frame.top) / frame.height,
      (right - frame.left) / frame.width,
      (bottom - frame.top) / frame.height,
    ]);
  });
  found.forEach(({ fractions }, index) =>
    fractions.forEach((side, at) => assert.ok(Math.abs(side - places[index][at]) < 0.01)),
  );
  assert.match(await text(page, ".problems"), /moon: expected 4 locations/);
  await page.click(".object");
  assert.equal(await page.$$eval(".form.marked", (forms) => forms.length), 1);
  await page.click(".object");
  await page.setRequestInterception(false);
  await close(page);
}

async function attentionIsShown() {
  const page = await open(address);
  await choose(page, "turtle.png");
  await page.click("#explain");
  await run(page);
  await page.waitForSelector(".heated .heat");
  const heat = () =>
    page.$eval(".heat", (canvas) => {
      const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
      copy.drawImage(canvas, 0, 0);
      return [...new Uint32Array(copy.getImageData(0, 0, canvas.width, canvas.height).data.buffer)];
    });
  const first = await heat();
  assert.ok(new Set(first).size > 3, "the heat has one color");
  assert.match(await text(page, "#code-text"), /"explain": true/);
  await shoot(page, "page-attention");
  const words = await page.$$(".word");
  if (words.length > 1) {
    await words[0].focus();
    await page.keyboard.press("ArrowRight");
    await page.evaluate(() =>
      document.querySelectorAll(".word")[document.querySelectorAll(".word").length - 1].click(),
    );
    assert.notDeepEqual(await heat(), first);
  }
  await page.click('.word[aria-pressed="true"]');
  assert.equal(await page.$(".heated"), null);
  await close(page);
}

async function theKeyboardIsEnough() {
  const page = await open(address);
  await page.keyboard.press("Tab");
  assert.equal(await focused(page), "skip");
  const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  assert.equal(outline, "solid");
  await page.keyboard.press("Enter");
  assert.equal(await focused(page), "file");
  const chooser = page.waitForFileChooser({ timeout: 10_000 });
  // The browser has to know that the dialog is ours before the key comes.
  await page.evaluate(() => new Promise(requestAnimationFrame));
  await page.keyboard.press("Enter");
  await (await chooser).accept([join(pictures, "turtle.png")]);
  await page.waitForSelector("#fields .thumb");
  assert.equal(await focused(page), "file");
  await tabTo(page, "run");
  await page.keyboard.press("Enter");
  await waitForText(page, "#status", "^Done");
  assert.ok((await text(page, ".answer-text")).length > 0);
  await tabTo(page, "code-curl");
  await page.keyboard.press("ArrowRight");
  assert.match(await text(page, "#code-text"), /^import base64/);
  // Tab leads out of the page in the end: nothing holds the focus.
  await tabTo(page, "");
  await close(page);
}

/** Presses Tab until an element has the focus; `""` is the page itself. */
async function tabTo(page, id) {
  for (let presses = 0; presses < 60; presses += 1) {
    await page.keyboard.press("Tab");
    const isReached = (id) => (id === "" ? document.activeElement === document.body : document.activeElement.id === id);
    if (await page.evaluate(isReached, id)) return;
  }
  assert.fail(`Tab does not reach '${id}'`);
}

async function errorsStandBesideTheirField() {
  const question = "x".repeat(400);
  const { error } = await ask("v1/tasks/vqa", { inputs: { image: dataUrl("cat.png"), question } });
  const page = await open(address, { view: "#task=vqa", statuses: [400] });
  await page.click("#run");
  assert.match(await text(page, ".field-image .problem"), /required/);
  assert.equal(await focused(page), "file");
  await choose(page, "cat.png");
  await fill(page, ".field-text input", question);
  await run(page);
  assert.equal(await text(page, ".field-text .problem"), error.message);
  assert.equal(await page.$eval(".field-text input", (input) => input.getAttribute("aria-invalid")), "true");
  await fill(page, ".field-text input", "what is this?");
  assert.equal(await page.$(".field-text .problem:not([hidden])"), null);

  // An error without a field stands above the answer.
  await page.click("#sampling summary");
  await page.type("#sampling-fields input", "-5");
  await run(page);
  assert.equal(await text(page, "#status"), "Failed");
  const shown = await page.$$eval("#error:not([hidden]), #sampling .problem:not([hidden])", (all) =>
    all.map((one) => one.textContent),
  );
  assert.equal(shown.length, 1);
  assert.ok(shown[0].length > 10, shown[0]);
  await close(page);
}

async function textsOfTheServerStayTexts() {
  const hostile = "<img src=x onerror=document.title='taken'>";
  const page = await open(address);
  const inputs = { "a-b": { type: "text", description: hostile, default: hostile } };
  const task = { name: hostile, description: hostile, trained: true, inputs, output: { kind: "text" } };
  await answerWith(page, "/v1/tasks", {
    contentType: "application/json",
    body: JSON.stringify({ object: "list", data: [task], broken: [{ file: hostile, error: hostile }] }),
  });
  await page.reload({ waitUntil: "networkidle0" });
  assert.equal(await text(page, "#task-name"), hostile);
  assert.equal(await page.$$eval("img", (images) => images.length), 0);
  assert.notEqual(await page.title(), "taken");
  await close(page);
}

/** Finds texts whose contrast to the color behind them is too low. */
function faintTexts(least) {
  // A canvas turns each color that CSS can say into bytes.
  const pen = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", {
    willReadFrequently: true,
  });
  const bytes = (color) => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = color;
    pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data];
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = bytes(getComputedStyle(at).backgroundColor);
      if (color[3] === 255) return color;
    }
    return [255, 255, 255, 255];
  };
  const light = (color) => {
    const [r, g, b] = color.map((part) =>
      part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4,
    );
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const faint = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (
      !walker.currentNode.textContent.trim() ||
      !element.checkVisibility({ visibilityProperty: true }) ||
      element.closest(":disabled")
    )
      continue;
    const pair = [light(bytes(getComputedStyle(element).color)), light(behind(element))].sort(
      (one, other) => other - one,
    );
    const contrast = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (contrast < least) faint.push(`${walker.currentNode.textContent.trim().slice(0, 40)}: ${contrast.toFixed(2)}`);
  }
  return faint;
}

async function bothColorsAreReadable() {
  for (const colors of ["light", "dark"]) {
    const page = await open(address, { view: "#task=verify", colors });
    await choose(page, "turtle.png", "dog.png");
    assert.deepEqual(await page.evaluate(faintTexts, CONTRAST), [], colors);
    await close(page);
  }
  const page = await open(address, { colors: "dark" });
  const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const dark = await background();
  await page.click("#theme");
  const light = await background();
  assert.notEqual(light, dark);
  await page.reload({ waitUntil: "networkidle0" });
  assert.equal(await background(), light);
  await close(page);
}

async function narrowScreensDoNotScrollSideways() {
  const page = await open(address, { viewport: { width: 360, height: 740 } });
  const isNarrow = async (where) =>
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360, where);
  const names = (await ask("v1/tasks")).data.map(({ name }) => name);
  for (const name of names) {
    await page.evaluate((name) => (location.hash = `#task=${name}`), name);
    await page.waitForFunction((name) => document.querySelector("#task-name").textContent === name, {}, name);
    await isNarrow(name);
  }
  await page.click("#tasks-toggle");
  await isNarrow("the list of tasks");
  await page.keyboard.press("Escape");
  assert.equal(await page.$eval("#tasks", (tasks) => tasks.checkVisibility()), false);
  await page.evaluate(() => (location.hash = "#task=caption"));
  await page.waitForFunction(() => document.querySelector("#task-name").textContent === "caption");
  await choose(page, "astronaut-photo.jpg");
  await page.click("#explain");
  await run(page);
  await isNarrow("an answer");
  await close(page);
}

async function aKeyIsAskedFor() {
  // Below a path, the page is found with and without a slash at its end.
  const page = await open(keyedAddress.replace(/(?<=[^/]\/[^/]+)\/$/, ""), { statuses: [401], password: KEY });
  await page.waitForSelector("#key-dialog[open]");
  assert.equal(await focused(page), "key");
  await page.keyboard.press("Escape");
  await page.waitForSelector("#failed:not([hidden])");
  await page.click("#retry");
  await page.waitForSelector("#key-dialog[open]");
  await page.type("#key", "wrong");
  await page.keyboard.press("Enter");
  await page.waitForFunction(
    () =>
      document.querySelector("#key-problem").textContent.includes("does not accept") &&
      !document.querySelector("#key-problem").hidden,
  );
  await page.type("#key", KEY);
  await page.keyboard.press("Enter");
  await waitForText(page, "#task-name", "^caption$");
  await choose(page, "turtle.png");
  await run(page);
  assert.match(await text(page, "#status"), /^Done/);
  const code = await text(page, "#code-text");
  assert.match(code, /Authorization: Bearer \$MULTIWAY_API_KEY/);
  assert.ok(!code.includes(KEY));
  await page.reload({ waitUntil: "networkidle0" });
  assert.equal(await page.$("#key-dialog[open]"), null);
  if ((await ask("v1/search", undefined, keyedAddress)).data?.length > 0) {
    await search(page, "a red apple");
    const source = await page.$eval(".card img", (image) => image.src);
    assert.match(source, /^blob:/);
  }
  // While the dialog was open, other requests were refused, too, which is what it is for.
  page.wrong = page.wrong.filter((line) => !line.includes("answers with an API key only"));
  await close(page);
}

async function search(page, query) {
  await page.click("#view-search");
  await fill(page, "#search-text", query);
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => {
    const images = [...document.querySelectorAll(".card img")].slice(0, 6);
    return images.length > 0 && images.every((image) => image.complete && image.naturalWidth > 0);
  });
}

async function searchFindsPictures() {
  const { data: indexes } = await ask("v1/search");
  const page = await open(address);
  const isOffered = await page.$eval("#views", (views) => views.checkVisibility());
  assert.equal(isOffered, indexes?.length > 0);
  if (!isOffered) return close(page);
  const { data } = await ask("v1/search", { index: indexes[0].id, query: "a red apple", limit: 24 });
  await search(page, "a red apple");
  const found = await page.$$eval(".card", (cards) =>
    cards.map((card) => [card.querySelector(".card-key").title, card.querySelector(".card-score").textContent]),
  );
  assert.deepEqual(
    found,
    data.map(({ key, score }) => [key, score.toFixed(3)]),
  );
  await page.evaluate(() => document.activeElement.blur());
  await shoot(page, "page-search");
  assert.deepEqual(await page.evaluate(faintTexts, CONTRAST), []);

  await page.focus(".card");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#found-dialog[open]");
  await page.keyboard.press("Escape");
  assert.equal(await page.$("#found-dialog[open]"), null);
  await page.click(".card");
  await page.click("#found-actions button:first-child");
  await page.waitForSelector("#search-picture .thumb");
  await waitForText(page, "#search-status", "nearest");
  await page.click(".card");
  await page.click("#found-actions button:last-child");
  await page.waitForSelector("#fields .thumb");
  assert.equal(await page.$eval("#task-view", (view) => view.checkVisibility()), true);
  await page.setViewport({ width: 360, height: 740 });
  await page.click("#view-search");
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360);
  return close(page);
}

const checks = [
  theCaptionStreams,
  theAnswerCanBeStopped,
  choicesAreBars,
  boxesAreDrawn,
  attentionIsShown,
  theKeyboardIsEnough,
  errorsStandBesideTheirField,
  textsOfTheServerStayTexts,
  bothColorsAreReadable,
  narrowScreensDoNotScrollSideways,
  ...(keyedAddress ? [aKeyIsAskedFor] : []),
  searchFindsPictures,
];
const only = process.env.MULTIWAY_PAGE_ONLY;
const chosen = checks.filter(({ name }) => !only || name === only);
assert.ok(chosen.length > 0, `MULTIWAY_PAGE_ONLY: expected one of ${checks.map(({ name }) => name).join(", ")}`);
try {
  for (const check of chosen) {
    try {
      await check();
    } catch (error) {
      console.error(`check_page: ${check.name}`);
      throw error;
    }
  }
  console.log(`check_page: ${chosen.length} uses of the page go as they should`);
} finally {
  await browser.close();
}
