// The answer: as it is written, and its typed parts when it is complete.

import { copyButton, counted, el, percent, roving } from "./dom.js";
import { showExplanation } from "./explanation.js";
import { colorsOf, drawForms } from "./overlay.js";

/** How many choices, and how many numbers of a vector, are shown at first. */
const FIRST_CHOICES = 12;
const FIRST_NUMBERS = 8;

const FORMS = { boxes: "box", points: "point", polygons: "polygon" };

const ENDS = { stop: "complete", stop_string: "ended at a stop text", length: "cut at the most tokens" };

/** Shows an outcome. `pictures` are those that the request had. */
export function outcomeParts(outcome, { kind, pictures }) {
  return [
    ...answerParts(outcome, kind, pictures),
    samples(outcome.samples),
    outcome.explanation && showExplanation(outcome.explanation, pictures),
    usage(outcome),
  ].filter(Boolean);
}

function answerParts(outcome, kind, pictures) {
  const form = Object.keys(FORMS).find((name) => Array.isArray(outcome[name]));
  if (form) return located(outcome[form], FORMS[form], outcome.text, pictures[0]);
  if (outcome.grounded) return grounded(outcome.grounded, pictures[0]);
  if (outcome.table) return table(outcome.table);
  if (outcome.number) return number(outcome.number, outcome.text);
  if (Array.isArray(outcome.labels)) return labels(outcome);
  if (outcome.score) return score(outcome.score);
  if (Array.isArray(outcome.embedding)) return vector(outcome.embedding);
  if (Array.isArray(outcome.patches)) return patches(outcome.patches);
  if (kind === "json")
    return [el("pre", { class: "block", tabindex: "0", text: JSON.stringify(outcome.value, null, 2) })];
  if (Array.isArray(outcome.choices)) return ranked(outcome);
  return [answerText(outcome.text ?? "")];
}

/** Shows a text in the size of an answer. */
export function answerText(text, className = "answer-text") {
  return text === ""
    ? el("p", { class: `${className} empty`, text: "The answer is empty." })
    : el("p", { class: className, text });
}

function note(text) {
  return el("p", { class: "note", text });
}

function ranked(outcome) {
  const level = outcome.level && `expected value ${outcome.level.expected.toFixed(2)}`;
  return [answerText(outcome.text ?? ""), level && note(level), bars(outcome.choices)];
}

/** Draws choices as bars. The exact probability is the value of each `data` element. */
function bars(choices) {
  const list = el("ul", { class: "bars", "aria-label": "Probabilities" });
  const show = (some) => list.append(...some.map(bar));
  show(choices.slice(0, FIRST_CHOICES));
  if (choices.length <= FIRST_CHOICES) return list;
  const more = el("button", { type: "button", class: "quiet", text: `Show all ${counted(choices.length, "choice")}` });
  more.addEventListener("click", () => {
    const at = list.children.length;
    show(choices.slice(FIRST_CHOICES));
    more.remove();
    list.children[at].tabIndex = -1;
    list.children[at].focus();
  });
  return el("div", {}, list, more);
}

function bar({ text, probability }) {
  const fill = el("span", { class: "bar-fill" });
  fill.style.width = `${100 * Math.min(Math.max(probability, 0), 1)}%`;
  return el(
    "li",
    { class: "bar-row" },
    el("span", { class: "bar-text", text }),
    el("data", { class: "bar-value", value: probability, text: percent(probability) }),
    el("span", { class: "bar-track", "aria-hidden": "true" }, fill),
  );
}

/** Shows objects over the picture, and as a list in which one can be marked. */
function located(objects, form, text, picture) {
  const color = colorsOf(objects.map((object) => object.label));
  const drawn = objects
    .filter((object) => object.fractions?.length > 0)
    .map((object) => ({ ...object, form, color: color(object.label) }));
  const wrong = objects.filter((object) => object.problem);
  const parts = [answerText(summary(drawn, form))];
  if (picture && drawn.length > 0) {
    const { element, mark } = drawForms(picture, drawn);
    parts.push(element, objectList(drawn, mark));
  }
  if (wrong.length > 0) parts.push(problems(wrong), note(`The model wrote: ${text}`));
  return parts;
}

function summary(drawn, form) {
  if (drawn.length === 0) return form === "box" ? "No boxes were found." : `No ${form}s were found.`;
  const counts = new Map();
  for (const { label } of drawn) counts.set(label, (counts.get(label) ?? 0) + 1);
  return [...counts].map(([label, count]) => (count > 1 ? `${label} × ${count}` : label)).join(", ");
}

function objectList(drawn, mark) {
  const list = el("ul", { class: "objects", "aria-label": "What was found" });
  const buttons = drawn.map((object, index) => {
    const button = el(
      "button",
      { type: "button", class: "object", "aria-pressed": "false" },
      el("span", { class: `swatch color-${object.color}`, "aria-hidden": "true" }),
      el("span", { class: "object-label", text: object.label || "no label" }),
      el("span", { class: "mono object-place", text: place(object) }),
    );
    button.addEventListener("pointerenter", () => mark(index));
    button.addEventListener("pointerleave", () => mark(pressed()));
    button.addEventListener("click", () => {
      const isPressed = button.getAttribute("aria-pressed") === "true";
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button && !isPressed));
      mark(pressed());
    });
    return button;
  });
  const pressed = () => {
    const at = buttons.findIndex((button) => button.getAttribute("aria-pressed") === "true");
    return at < 0 ? null : at;
  };
  roving(list, buttons);
  list.append(...buttons.map((button) => el("li", {}, button)));
  return list;
}

function place(object) {
  const numbers = (object.pixels ?? []).map((value) => String(Math.round(value)));
  return numbers.length > 8 ? `${numbers.slice(0, 8).join(", ")}, …` : numbers.join(", ");
}

function problems(objects) {
  const items = objects.map(({ label, problem }) => el("li", { text: label ? `${label}: ${problem}` : problem }));
  return el("ul", { class: "problems" }, ...items);
}

/** Shows a text whose phrases can be chosen, and their boxes. */
function grounded(answer, picture) {
  const boxes = answer.phrases.flatMap((phrase) => phrase.boxes.map((box) => ({ ...box, label: phrase.text })));
  const color = colorsOf(boxes.map((box) => box.label));
  const text = el("p", { class: "answer-text" });
  const characters = [...answer.plain];
  let at = 0;
  for (const phrase of answer.phrases) {
    text.append(characters.slice(at, phrase.start_char).join(""));
    const words = characters.slice(phrase.start_char, phrase.end_char).join("");
    text.append(el("mark", { class: `phrase color-${Math.max(color(phrase.text), 0)}`, text: words }));
    at = phrase.end_char;
  }
  text.append(characters.slice(at).join(""));
  const [, ...rest] = located(boxes, "box", answer.plain, picture);
  return [text, boxes.length === 0 && note("No phrase has a box."), ...rest];
}

function labels({ labels, unknown = [] }) {
  if (labels.length === 0 && unknown.length === 0) return [answerText("")];
  const chips = labels.map((label) => el("li", { class: "chip", text: label }));
  const others = unknown.map((label) => el("li", { class: "chip chip-unknown", text: label }));
  return [
    el("ul", { class: "chips", "aria-label": "Labels" }, ...chips, ...others),
    unknown.length > 0 && note("Dashed labels are not among those to choose from."),
  ];
}

function number({ value, unit, problem }, text) {
  if (value === null || value === undefined) return [answerText(text ?? ""), note(problem ?? "This is no number.")];
  return [answerText([value.toLocaleString("en", { maximumFractionDigits: 12 }), unit].filter(Boolean).join(" "))];
}

function table({ title, header, rows, problems: wrong = [] }) {
  const line = (cells, tag) => el("tr", {}, ...cells.map((text) => el(tag, { text, scope: tag === "th" && "col" })));
  const element = el(
    "table",
    {},
    title && el("caption", { text: title }),
    el("thead", {}, line(header, "th")),
    el("tbody", {}, ...rows.map((row) => line(row, "td"))),
  );
  const quoted = (cell) => (/[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);
  const csv = () => [header, ...rows].map((row) => `${row.map(quoted).join(",")}\r\n`).join("");
  return [
    el("div", { class: "scrolls", tabindex: "0", role: "group", "aria-label": "Table" }, element),
    el("div", {}, copyButton("Copy as CSV", csv)),
    ...wrong.map(note),
  ];
}

function score({ log_probability: sum, tokens = [] }) {
  const rows = tokens.map(({ piece, log_probability: value }) =>
    el("tr", {}, el("td", { class: "mono", text: piece }), el("td", { class: "mono right", text: value.toFixed(4) })),
  );
  const head = el(
    "tr",
    {},
    el("th", { scope: "col", text: "Token" }),
    el("th", { scope: "col", class: "right", text: "Log-probability" }),
  );
  const element = el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows));
  return [
    answerText(`Log-likelihood ${sum.toFixed(4)}`),
    rows.length > 0 && el("div", { class: "scrolls", tabindex: "0", role: "group", "aria-label": "Tokens" }, element),
  ];
}

function vector(numbers) {
  const first = numbers.slice(0, FIRST_NUMBERS).map((value) => value.toFixed(4));
  const rest = numbers.length > FIRST_NUMBERS ? ", …" : "";
  return [
    answerText(`A vector of ${counted(numbers.length, "number")}`),
    el("pre", { class: "block wraps", text: `[${first.join(", ")}${rest}]` }),
    el(
      "div",
      {},
      copyButton("Copy all numbers", () => JSON.stringify(numbers)),
    ),
  ];
}

function patches(all) {
  const rows = all.map(({ row, column, codes }) => {
    const written = codes.map(({ code, probability }) => `${code} (${percent(probability)})`).join(", ");
    return el("tr", {}, el("td", { text: `${row}:${column}` }), el("td", { class: "mono", text: written }));
  });
  const head = el(
    "tr",
    {},
    el("th", { scope: "col", text: "Patch" }),
    el("th", { scope: "col", text: "Visual codes" }),
  );
  return [
    answerText(counted(all.length, "hidden patch")),
    el(
      "div",
      { class: "scrolls", tabindex: "0", role: "group", "aria-label": "Hidden patches" },
      el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows)),
    ),
  ];
}

function samples(all) {
  if (!Array.isArray(all) || all.length < 2) return null;
  const rows = all.map((sample) =>
    el(
      "li",
      {},
      el("span", { text: sample.text || "(empty)" }),
      el("span", { class: "muted", text: percent(Math.exp(sample.mean_log_probability)) }),
    ),
  );
  const heading = el("h3", { text: `${counted(all.length, "sample")}, with the mean probability of a token` });
  return el("section", {}, heading, el("ol", { class: "samples" }, ...rows));
}

function usage(outcome) {
  const { prompt_tokens: prompt, image_patches: seen, new_tokens: written } = outcome.usage ?? {};
  const logs = outcome.explanation?.log_probabilities ?? outcome.tokens?.map((token) => token.log_probability) ?? [];
  const mean = logs.reduce((sum, value) => sum + value, 0) / logs.length;
  const facts = [
    prompt && counted(prompt, "prompt token"),
    seen && counted(seen, "patch"),
    written && counted(written, "new token"),
    logs.length > 0 && Number.isFinite(mean) && `mean token probability ${percent(Math.exp(mean))}`,
    Object.hasOwn(ENDS, outcome.finish_reason ?? "") && ENDS[outcome.finish_reason],
  ];
  return el(
    "footer",
    { class: "usage" },
    el("span", { text: facts.filter(Boolean).join(" · ") }),
    copyButton("Copy JSON", () => JSON.stringify(outcome, null, 2)),
  );
}
