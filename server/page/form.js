// The form of a task: its fields, the sampling parameters, and the request that they make.

import { el } from "./dom.js";
import { FieldProblem, isPicture, makeField } from "./fields.js";

/** Answers that are written token by token; the others have nothing to sample. */
const GENERATED = ["text", "labels", "number", "boxes", "points", "polygons", "grounded", "table", "json"];

/** Answers of which the server can tell where the model looked. */
const EXPLAINED = [...GENERATED, "choice", "predicate", "level"];

const SAMPLING = {
  max_new_tokens: { type: "integer", description: "most tokens of the answer", min: 1 },
  temperature: { type: "number", description: "0 is greedy decoding", min: 0 },
  top_p: { type: "number", description: "nucleus sampling", min: 0, max: 1 },
  seed: { type: "integer", description: "the same seed gives the same answer", min: 0 },
  samples: { type: "integer", description: "how many answers are drawn", min: 1 },
};

/** Marks a picture in a request that is shown to the user rather than sent. */
export class Placeholder {
  constructor(fileName) {
    this.fileName = fileName;
  }
}

/** The form of a task. */
export class TaskForm {
  /** @param before the form whose values are taken over where names and types are the same. */
  constructor(task, { maxPictures, changed, before }) {
    this.task = task;
    const options = { changed, maxPictures };
    this.fields = Object.entries(task.inputs).map(([name, spec]) => makeField(name, spec, options));
    this.sampling = Object.entries(SAMPLING).map(([name, spec]) =>
      makeField(name, { ...spec, default: null }, options),
    );
    this.kind = task.output?.kind;
    if (before) this.#takeOver(before);
  }

  #takeOver(before) {
    const pictures = before.pictureFields().flatMap((field) => field.input.pictures);
    for (const field of this.pictureFields()) field.set(pictures.splice(0, field.input.many));
    for (const field of this.fields) {
      const same = before.fields.find(({ name, spec }) => name === field.name && spec.type === field.spec.type);
      const value = same && !isPicture(field.spec) ? valueOf(same) : undefined;
      if (value !== undefined) field.set(value);
    }
  }

  pictureFields() {
    return this.fields.filter((field) => isPicture(field.spec));
  }

  /** Puts the fields into the page: pictures side by side, then the others. */
  show(container, samplingContainer) {
    const pictures = this.pictureFields().map((field) => field.element);
    const others = this.fields.filter((field) => !isPicture(field.spec)).map((field) => field.element);
    const row = pictures.length > 0 ? [el("div", { class: "picture-fields" }, ...pictures)] : [];
    container.replaceChildren(...row, ...others);
    samplingContainer.replaceChildren(...this.sampling.map((field) => field.element));
  }

  hasSampling() {
    return GENERATED.includes(this.kind);
  }

  canExplain() {
    return this.pictureFields().length > 0 && EXPLAINED.includes(this.kind);
  }

  /** Tells whether the request has a picture, or must have one, over which attention can be shown. */
  hasPicture() {
    return this.pictureFields().some((field) => field.input.pictures.length > 0 || !field.isOptional());
  }

  /** Checks all fields and shows their problems; gives back whether there are none. */
  check() {
    const sampling = this.hasSampling() ? this.sampling : [];
    const wrong = [...this.fields, ...sampling].filter((field) => !this.#isRight(field));
    const more = wrong[0]?.element.closest("details");
    if (more) more.open = true;
    wrong[0]?.focus();
    return wrong.length === 0;
  }

  #isRight(field) {
    try {
      field.get();
      field.showProblem(null);
      return true;
    } catch (error) {
      if (!(error instanceof FieldProblem)) throw error;
      field.showProblem(error.message);
      return false;
    }
  }

  /** Shows an error beside the field that it is about; gives back whether there is such a field. */
  showProblem(message, param) {
    const named = ({ name }, of) => param === `${of}.${name}` || param?.startsWith(`${of}.${name}[`);
    const field =
      this.fields.find((one) => named(one, "inputs")) ?? this.sampling.find((one) => named(one, "sampling"));
    field?.showProblem(message);
    field?.focus();
    return field !== undefined;
  }

  /** Gives the pictures in the order of the inputs. */
  pictures() {
    return this.pictureFields().flatMap((field) => field.input.pictures);
  }

  /** Makes the body of the request, with its pictures. */
  async request(extra) {
    const sent = new Map();
    for (const field of this.pictureFields()) {
      if (field.input.pictures.length > 0) sent.set(field, await field.sent());
    }
    return this.#body(extra, (field) => sent.get(field));
  }

  /** Makes the body of the request as far as the fields are filled in, with placeholders for pictures. */
  sketch(extra) {
    let count = 0;
    const next = () => new Placeholder((count += 1) === 1 ? "picture.png" : `picture-${count}.png`);
    return this.#body(extra, (field) => {
      const given = field.input.pictures.length;
      if (field.spec.type === "image") return next();
      const wanted = Math.max(given, field.spec.min ?? 0);
      return wanted > 0 ? Array.from({ length: wanted }, next) : undefined;
    });
  }

  #body(extra, pictureOf) {
    const { model, ...after } = extra;
    const body = model === undefined ? {} : { model };
    body.inputs = {};
    for (const field of this.fields) {
      const value = isPicture(field.spec) ? pictureOf(field) : valueOf(field);
      if (value !== undefined && !isDefault(field, value)) body.inputs[field.name] = value;
    }
    const sampling = this.hasSampling() ? this.sampling.map((field) => [field.name, valueOf(field)]) : [];
    const given = sampling.filter(([, value]) => value !== undefined);
    if (given.length > 0) body.sampling = Object.fromEntries(given);
    return { ...body, ...after };
  }
}

/** Reads a field, also one that is not right yet. */
function valueOf(field) {
  try {
    return field.get();
  } catch (error) {
    if (!(error instanceof FieldProblem)) throw error;
    return undefined;
  }
}

function isDefault(field, value) {
  return field.spec.default !== undefined && JSON.stringify(value) === JSON.stringify(field.spec.default);
}
