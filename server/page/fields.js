// Fields of a form, one for each kind of input of a task file.

import { counted, el, freshId, labelled } from "./dom.js";
import { PictureInput, dataUrl } from "./pictures.js";

/** A text that may be longer than this has several lines. */
const ONE_LINE = 300;

/** JSON up to this length is written on one line. */
const LINE = 60;

/** Why a field has no value that could be sent. */
export class FieldProblem extends Error {}

/** A labelled control, its help, and the problem that it has. A control that brings its label has its help below. */
class Field {
  constructor(name, spec, changed) {
    this.name = name;
    this.spec = spec;
    this.changed = changed;
    this.id = freshId();
    this.label = labelled(name);
    this.help = el("span", { class: "help", id: `${this.id}-help` });
    this.problem = el("p", { class: "problem", id: `${this.id}-problem`, hidden: true });
  }

  /** Puts a control into the page, with its label and its help above. */
  place(control, { label = el("label", { class: "label", for: this.id, text: this.label }), focus = control } = {}) {
    this.focusable = focus;
    focus.setAttribute("aria-describedby", `${this.help.id} ${this.problem.id}`);
    const note = this.mayBeEmpty() ? el("span", { class: "optional", text: "optional" }) : null;
    this.help.textContent = this.spec.description ?? "";
    this.element = el(
      "div",
      { class: `field field-${this.spec.type}` },
      label && el("div", { class: "label-row" }, label, this.help, note),
      control,
      !label && this.help,
      this.problem,
    );
    this.element.addEventListener("input", () => this.showProblem(null));
  }

  isOptional() {
    return this.spec.default !== undefined;
  }

  /** Tells whether to say that nothing has to be filled in; a default that can be seen says it by itself. */
  mayBeEmpty() {
    return this.spec.default === "";
  }

  /** Shows what is wrong with the value, or that nothing is. */
  showProblem(text) {
    this.problem.hidden = text === null;
    this.problem.textContent = text ?? "";
    this.focusable.setAttribute("aria-invalid", String(text !== null));
  }

  focus() {
    this.focusable.focus();
  }

  /** Gives up where an input that is required is empty. */
  empty() {
    if (this.isOptional()) return undefined;
    throw new FieldProblem(`${this.label} is required.`);
  }
}

class TextField extends Field {
  constructor(name, spec, changed) {
    super(name, spec, changed);
    const isShort = (spec.max_length ?? Infinity) <= ONE_LINE;
    const rows = (spec.max_length ?? 0) > 4000 ? 6 : 3;
    const options = { id: this.id, autocomplete: "off", oninput: () => this.#typed() };
    this.control = isShort ? el("input", { type: "text", ...options }) : el("textarea", { rows, ...options });
    this.place(this.control);
    this.set(spec.default ?? "");
  }

  #typed() {
    this.#count();
    this.changed();
  }

  /** Says how long the text is once it is near what it may have. The server refuses a longer one. */
  #count() {
    const limit = this.spec.max_length;
    const length = [...this.control.value].length;
    const description = this.spec.description ?? "";
    const count = limit && length > 0.8 * limit ? `${length} of at most ${counted(limit, "character")}` : "";
    this.help.textContent = [description, count].filter(Boolean).join(" · ");
  }

  get() {
    return this.control.value === "" && !this.isOptional() ? this.empty() : this.control.value;
  }

  set(value) {
    this.control.value = String(value);
    this.#count();
  }
}

class NumberField extends Field {
  constructor(name, spec, changed) {
    super(name, spec, changed);
    const step = spec.type === "integer" ? 1 : "any";
    const { min, max } = spec;
    this.control = el("input", { type: "number", id: this.id, step, min, max, oninput: changed });
    this.place(this.control);
    this.set(spec.default ?? "");
  }

  get() {
    if (this.control.validity.badInput) throw new FieldProblem(`${this.label}: expected a number.`);
    return this.control.value === "" ? this.empty() : Number(this.control.value);
  }

  set(value) {
    this.control.value = String(value);
  }
}

class BooleanField extends Field {
  constructor(name, spec, changed) {
    super(name, spec, changed);
    this.control = el("input", { type: "checkbox", id: this.id, onchange: changed });
    const label = el("label", { class: "check" }, this.control, el("span", { text: this.label }));
    this.place(label, { label: null, focus: this.control });
    this.set(spec.default ?? false);
  }

  get() {
    return this.control.checked;
  }

  set(value) {
    this.control.checked = value === true;
  }
}

class ChoiceField extends Field {
  constructor(name, spec, changed) {
    super(name, spec, changed);
    const options = (spec.choices ?? []).map((choice) => el("option", { value: choice, text: choice }));
    if (spec.default === undefined) options.unshift(el("option", { value: "", text: "Choose one" }));
    this.control = el("select", { id: this.id, onchange: changed }, ...options);
    this.place(this.control);
    if (spec.default !== undefined) this.set(spec.default);
  }

  get() {
    return this.control.value === "" ? this.empty() : this.control.value;
  }

  set(value) {
    if (this.spec.choices?.includes(value)) this.control.value = value;
  }
}

/** A list of texts, one on each line, since a text may have commas. */
class ListField extends Field {
  constructor(name, spec, changed) {
    super(name, spec, changed);
    this.control = el("textarea", { id: this.id, rows: 4, autocomplete: "off", oninput: () => this.#typed() });
    this.place(this.control);
    this.count = el("span", { class: "help count" });
    this.split = el("button", { type: "button", class: "link", text: "Split at commas", onclick: () => this.#split() });
    this.problem.before(el("div", { class: "count-row" }, this.count, this.split));
    this.set(spec.default ?? []);
  }

  #typed() {
    this.#describe();
    this.changed();
  }

  #describe() {
    const { min, max } = this.spec;
    const items = this.items();
    const bounds = min && max ? `from ${min} to ${max}` : min ? `at least ${min}` : max ? `at most ${max}` : "";
    this.count.textContent = `One on each line: ${counted(items.length, "item")}${bounds && `, ${bounds}`}`;
    this.split.hidden = items.length !== 1 || !items[0].includes(",");
  }

  #split() {
    this.set(this.control.value.split(",").map((item) => item.trim()));
    this.changed();
    this.control.focus();
  }

  items() {
    return this.control.value
      .split("\n")
      .map((item) => item.trim())
      .filter(Boolean);
  }

  get() {
    const items = this.items();
    return items.length === 0 && (this.spec.min ?? 0) > 0 ? this.empty() : items;
  }

  set(value) {
    if (Array.isArray(value)) this.control.value = value.join("\n");
    this.#describe();
  }
}

class BoxField extends Field {
  constructor(name, spec, changed) {
    super(name, spec, changed);
    const unit = spec.unit === "fractions" ? { min: 0, max: 1 } : { min: 0 };
    this.sides = ["Left", "Top", "Right", "Bottom"].map((side) =>
      el("input", {
        type: "number",
        step: "any",
        ...unit,
        "aria-label": `${this.label}: ${side}`,
        placeholder: side,
        oninput: changed,
      }),
    );
    const label = el("span", { class: "label", text: this.label });
    this.place(el("div", { class: "box-sides" }, ...this.sides), { label, focus: this.sides[0] });
    const measured = spec.unit === "fractions" ? "in fractions of the picture" : "in pixels of the picture";
    this.help.textContent = [spec.description, measured].filter(Boolean).join(", ");
    if (Array.isArray(spec.default)) this.set(spec.default);
  }

  get() {
    const given = this.sides.filter((side) => side.value !== "").length;
    if (given === 0) return this.empty();
    if (given < this.sides.length) throw new FieldProblem(`${this.label}: expected four numbers.`);
    return this.sides.map((side) => Number(side.value));
  }

  set(value) {
    this.sides.forEach((side, index) => (side.value = value[index] ?? ""));
  }
}

class JsonField extends Field {
  constructor(name, spec, changed) {
    super(name, spec, changed);
    this.control = el("textarea", { id: this.id, rows: 4, class: "mono", spellcheck: "false", oninput: changed });
    this.place(this.control);
    if (spec.default !== undefined) this.set(spec.default);
  }

  /** What is not JSON is a text, as on the command line. */
  get() {
    const text = this.control.value.trim();
    if (text === "") return this.empty();
    try {
      return JSON.parse(text);
    } catch {
      return text;
    }
  }

  set(value) {
    const line = JSON.stringify(value);
    this.control.value = line.length <= LINE ? line : JSON.stringify(value, null, 2);
  }
}

class PictureField extends Field {
  constructor(name, spec, { changed, maxPictures }) {
    super(name, spec, changed);
    const isOne = spec.type === "image";
    const many = isOne ? 1 : Math.min(spec.max ?? Infinity, maxPictures);
    this.input = new PictureInput({ label: this.label, many, changed: () => this.#changed() });
    const labelId = `${this.id}-label`;
    const label = el("span", { class: "label", id: labelId, text: this.label });
    this.place(this.input.element, { label, focus: this.input.file });
    this.input.element.setAttribute("role", "group");
    this.input.element.setAttribute("aria-labelledby", labelId);
  }

  #changed() {
    this.showProblem(null);
    this.changed();
  }

  isOptional() {
    return this.spec.type === "images" && !(this.spec.min > 0);
  }

  mayBeEmpty() {
    return this.isOptional();
  }

  get() {
    const pictures = this.input.pictures;
    if (pictures.length === 0) return this.empty();
    return this.spec.type === "image" ? pictures[0] : pictures;
  }

  /** Gives the pictures as the request has them. */
  async sent() {
    const urls = await Promise.all(this.input.pictures.map(dataUrl));
    return this.spec.type === "image" ? urls[0] : urls;
  }

  set(pictures) {
    this.input.set(pictures);
  }
}

const KINDS = {
  text: TextField,
  integer: NumberField,
  number: NumberField,
  boolean: BooleanField,
  choice: ChoiceField,
  list: ListField,
  box: BoxField,
  json: JsonField,
};

/** Tells whether an input is one or more pictures. */
export function isPicture(spec) {
  return spec.type === "image" || spec.type === "images";
}

/** Makes the field of an input. A kind that the page does not know is written as JSON. */
export function makeField(name, spec, options) {
  if (isPicture(spec)) return new PictureField(name, spec, options);
  const Kind = Object.hasOwn(KINDS, spec.type) ? KINDS[spec.type] : JsonField;
  return new Kind(name, spec, options.changed);
}
