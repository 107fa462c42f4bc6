// Elements, and texts of numbers. Texts of the server enter the page as text nodes only.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Makes an element. `text` becomes its text, keys with `on` become listeners, `true` and `false` set or leave out an
 * attribute, and everything else is an attribute.
 */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Makes an SVG element, with attributes as in `el`. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name === "text") element.textContent = value;
    else if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Finds an element of index.html by its id. */
export function byId(id) {
  return document.getElementById(id);
}

let lastId = 0;

/** Makes an id that no other element has. */
export function freshId() {
  lastId += 1;
  return `id-${lastId}`;
}

/** Writes a probability as a percentage. */
export function percent(share) {
  if (!Number.isFinite(share)) return "-";
  if (share > 0 && share < 0.0001) return "< 0.01 %";
  if (share > 0.9999 && share < 1) return "> 99.99 %";
  const digits = share < 0.01 || share > 0.99 ? 2 : 1;
  return `${(100 * share).toFixed(share === 0 || share === 1 ? 0 : digits)} %`;
}

/** Writes a count with its noun: `1 item`, `3 items`. */
export function counted(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : noun.endsWith("ch") ? "es" : "s"}`;
}

/** Writes a name of the API as a label: `few_words` as `Few words`. */
export function labelled(name) {
  const words = name.replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** Makes a button that copies a text, and says so. */
export function copyButton(label, text) {
  const button = el("button", { type: "button", class: "quiet", text: label });
  let timer = 0;
  button.addEventListener("click", async () => {
    const done = await copy(text());
    button.textContent = done ? "Copied" : "Not copied";
    announce(done ? "Copied" : "Not copied");
    clearTimeout(timer);
    timer = setTimeout(() => (button.textContent = label), 1600);
  });
  return button;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text);
  }
}

/** Copies where the page is served without TLS from another machine, which has no clipboard API. */
function copyBySelection(text) {
  const focused = document.activeElement;
  const area = el("textarea", { class: "offscreen", "aria-hidden": "true" });
  area.value = text;
  // An open dialog makes everything outside of it inert.
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  focused?.focus();
  return done;
}

/** Says something to screen readers that is seen elsewhere. */
export function announce(text) {
  byId("announcer").textContent = text;
}

/** Lets the arrow keys, Home and End move between buttons, of which one is in the order of Tab. */
export function roving(container, buttons, chosen = 0) {
  const focusable = (index) => buttons.forEach((button, at) => (button.tabIndex = at === index ? 0 : -1));
  focusable(chosen);
  container.addEventListener("keydown", (event) => {
    const at = buttons.indexOf(document.activeElement);
    const last = buttons.length - 1;
    const next = {
      ArrowRight: Math.min(at + 1, last),
      ArrowDown: Math.min(at + 1, last),
      ArrowLeft: Math.max(at - 1, 0),
      ArrowUp: Math.max(at - 1, 0),
      Home: 0,
      End: last,
    }[event.key];
    if (at < 0 || next === undefined) return;
    event.preventDefault();
    focusable(next);
    buttons[next].focus();
  });
  container.addEventListener("focusin", (event) => {
    const at = buttons.indexOf(event.target);
    if (at >= 0) focusable(at);
  });
}

/** Reads what a storage of the browser holds; nothing where storage is forbidden. */
export function stored(storage, name) {
  try {
    return window[storage].getItem(name);
  } catch {
    return null;
  }
}

/** Keeps a text in a storage of the browser, or removes it. */
export function store(storage, name, text) {
  try {
    if (text === null) window[storage].removeItem(name);
    else window[storage].setItem(name, text);
  } catch {
    // Storage can be forbidden; then it lasts as long as the page.
  }
}
