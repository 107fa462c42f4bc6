// Where the model looked: words that can be chosen, and the heat of each over the pictures.

import { el, percent, roving } from "./dom.js";
import { HeatPicture, heatLegend } from "./overlay.js";

/**
 * Shows an explanation. `inputs` says for each picture of the prompt which one of the request it is; those of few-shot
 * examples are null.
 */
export function showExplanation(explanation, pictures) {
  const { answer = [], alignment = null } = explanation;
  const groups = [
    { name: "Words of the answer", words: answer.filter(hasPatches) },
    { name: "Words of the prompt", words: (alignment?.words ?? []).filter(hasPatches) },
  ].filter(({ words }) => words.length > 0);
  const heading = el("h3", { text: "Where it looked" });
  if (groups.length === 0 || pictures.length === 0) {
    return el(
      "section",
      { class: "explanation" },
      heading,
      el("p", { class: "note", text: "There are no words with patches to show." }),
    );
  }
  const heats = heatPictures(explanation, pictures);
  const legend = heatLegend();
  const shares = el("p", { class: "note", "aria-live": "polite" });
  const buttons = [];
  const choose = (button, word) => {
    for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
    draw(word, heats, legend);
    shares.textContent = word === null ? "Choose a word to see where the model looked." : told(word);
  };
  const rows = groups.map(({ name, words }) => wordRow(name, words, buttons, choose));
  choose(buttons[0], groups[0].words[0]);
  return el(
    "section",
    { class: "explanation" },
    heading,
    ...rows,
    el("div", { class: "frames" }, ...heats.map(({ heat }) => heat.element)),
    legend.element,
    shares,
    answer.length === 0 &&
      el("p", { class: "note", text: "Of this answer there is no cross-attention; only the prompt is aligned." }),
    el("p", {
      class: "note",
      text: "Each word has its own scale. It says where numbers came from, not why the answer is what it is.",
    }),
  );
}

function hasPatches(word) {
  return Array.isArray(word?.patches) && word.patches.length > 0;
}

/** More patches along a side than any model has; a canvas of that size is still small. */
const MOST_PATCHES = 512;

/** Pairs the pictures of the request with their places in the prompt. */
function heatPictures(explanation, pictures) {
  const side = Math.min(Math.max(explanation.grid, 1), MOST_PATCHES);
  return explanation.inputs.flatMap((index, at) => {
    const picture = index === null ? undefined : pictures[index];
    if (!picture) return [];
    return [{ at, heat: new HeatPicture(picture, { rows: side, columns: side, visible: explanation.visible[at] ?? undefined }) }];
  });
}

function wordRow(name, words, buttons, choose) {
  const own = words.map((word) => {
    const button = el("button", { type: "button", class: "word", "aria-pressed": "false", text: word.text });
    button.addEventListener("click", () => {
      const isPressed = button.getAttribute("aria-pressed") === "true";
      choose(isPressed ? null : button, isPressed ? null : word);
    });
    return button;
  });
  buttons.push(...own);
  const row = el("div", { class: "words", role: "group", "aria-label": name }, ...own);
  roving(row, own);
  return el("div", { class: "word-row" }, el("span", { class: "label", text: name }), row);
}

function draw(word, heats, legend) {
  const most = word === null ? 0 : Math.max(0, ...heats.flatMap(({ at }) => word.patches[at] ?? []));
  for (const { at, heat } of heats) heat.draw(word === null ? null : (word.patches[at] ?? []), most);
  legend.element.classList.toggle("invisible", word === null);
  legend.setMost(most);
}

/** Tells the shares of a word: of the answer those of attention, of the prompt none. */
function told(word) {
  if (!Number.isFinite(word.text_share)) return `“${word.text}”: which patches the word goes with.`;
  const pictures = word.patches.flat().reduce((sum, share) => sum + share, 0);
  const rest = Number.isFinite(word.class_share) ? `, class rows ${percent(word.class_share)}` : "";
  return `“${word.text}”: pictures ${percent(pictures)}, text of the prompt ${percent(word.text_share)}${rest}`;
}
