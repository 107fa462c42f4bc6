// Pictures: reading files, the inputs that take them, and what is dropped or pasted.

import { announce, el, freshId } from "./dom.js";

/** What the server reads. */
const TYPES = "image/png,image/jpeg,image/webp,image/gif,image/bmp";

/** Opens a file as a picture. A file that the browser cannot show has no size; the server says what it is. */
export async function openPicture(file, name = file.name || "picture.png") {
  const url = URL.createObjectURL(file);
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
  } catch {
    return { file, name, url, width: 0, height: 0 };
  }
  return { file, name, url, width: image.naturalWidth, height: image.naturalHeight };
}

/** Writes a picture as a data URL. */
export function dataUrl(picture) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error(`${picture.name} cannot be read: was it moved?`));
    reader.readAsDataURL(picture.file);
  });
}

/** Says a picture's size: `64 × 48`. */
function sizeOf(picture) {
  return picture.width ? `${picture.width} × ${picture.height}` : "no preview";
}

/** Makes the element that shows a picture. */
export function pictureElement(picture, alt = picture.name) {
  if (!picture.width) return el("span", { class: "no-preview", text: picture.name });
  return el("img", { src: picture.url, alt, draggable: "false" });
}

/** An input that takes one picture, or several. */
export class PictureInput {
  /** @param many how many pictures it takes; @param changed is called when its pictures change. */
  constructor({ label, many, changed }) {
    this.label = label;
    this.many = many;
    this.changed = changed;
    this.pictures = [];
    this.id = freshId();
    this.file = el("input", {
      type: "file",
      id: this.id,
      class: "file",
      accept: TYPES,
      multiple: many > 1,
      onchange: () => this.#choose(),
    });
    this.list = el("div", { class: "thumbs" });
    this.element = el("div", { class: many > 1 ? "drop drop-many" : "drop" }, this.list);
    this.element.pictureInput = this;
    this.#draw();
  }

  async #choose() {
    await this.add([...this.file.files]);
    this.file.value = "";
    this.file.focus();
  }

  /** Opens files and takes them; gives back those that are too many. */
  async add(files) {
    const opened = await Promise.all(files.map((file) => openPicture(file)));
    return this.take(opened);
  }

  /** Takes pictures; gives back those that are too many. One picture replaces the one that is there. */
  take(pictures) {
    if (pictures.length === 0) return [];
    const before = this.many === 1 ? [] : this.pictures;
    const room = Math.max(this.many - before.length, 0);
    this.set([...before, ...pictures.slice(0, room)]);
    const names = pictures.slice(0, room).map((picture) => picture.name);
    if (names.length > 0) announce(`${this.label}: ${names.join(", ")}`);
    return pictures.slice(room);
  }

  set(pictures) {
    this.pictures = pictures;
    this.#draw();
    this.changed();
  }

  #draw() {
    const tiles = this.pictures.map((picture, index) => this.#tile(picture, index));
    const isFull = this.pictures.length >= this.many;
    this.element.classList.toggle("has-pictures", tiles.length > 0);
    this.list.replaceChildren(...tiles, this.#chooser(isFull));
  }

  #tile(picture, index) {
    const buttons = el("span", { class: "thumb-buttons" });
    const button = (text, label, act) =>
      buttons.append(
        el("button", { type: "button", class: "icon", text, "aria-label": label, title: label, onclick: act }),
      );
    if (index > 0) button("←", `Move ${picture.name} before the one on its left`, () => this.#swap(index));
    button("×", `Remove ${picture.name}`, () => this.#remove(index));
    const caption = this.many > 1 ? `${index + 1}. ${picture.name}` : `${picture.name} · ${sizeOf(picture)}`;
    return el(
      "figure",
      { class: "thumb" },
      el("span", { class: "thumb-picture" }, pictureElement(picture)),
      el("figcaption", { text: caption, title: picture.name }),
      buttons,
    );
  }

  #swap(index) {
    const pictures = [...this.pictures];
    [pictures[index - 1], pictures[index]] = [pictures[index], pictures[index - 1]];
    this.set(pictures);
    this.list.children[index - 1]?.querySelector("button")?.focus();
  }

  #remove(index) {
    announce(`${this.pictures[index].name} was removed`);
    this.set(this.pictures.filter((_, at) => at !== index));
    this.file.focus();
  }

  /** Makes what opens the browser's dialog; it is smaller beside pictures. */
  #chooser(isFull) {
    const isEmpty = this.pictures.length === 0;
    const verb = isEmpty ? "Choose" : this.many > 1 ? "Add" : "Replace";
    const noun = this.many > 1 ? "pictures" : "a picture";
    const text = isEmpty ? `${verb} ${noun}` : verb;
    this.file.disabled = isFull && this.many > 1;
    return el(
      "label",
      { class: "choose", for: this.id },
      this.file,
      el("span", { class: "choose-text", text }),
      isEmpty && el("span", { class: "choose-hint", text: "or drop it here, or paste it" }),
    );
  }
}

/** Takes what is dropped anywhere, or pasted. `inputs` lists the picture inputs that can be seen. */
export function takeDropsAndPastes(inputs) {
  let depth = 0;
  const mark = (isDragging) => document.body.classList.toggle("dragging", isDragging);
  const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  document.addEventListener("dragenter", (event) => {
    if (!hasFiles(event)) return;
    depth += 1;
    mark(true);
  });
  document.addEventListener("dragleave", (event) => {
    if (!hasFiles(event)) return;
    depth = Math.max(depth - 1, 0);
    if (depth === 0) mark(false);
  });
  // A file that is dropped beside an input would else replace the page.
  document.addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    depth = 0;
    mark(false);
    distribute([...event.dataTransfer.files], inputs(), event.target.closest?.(".drop")?.pictureInput);
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])].filter((file) => file.type.startsWith("image/"));
    const isText = event.target.matches?.("input, textarea") && event.clipboardData.types.includes("text/plain");
    if (files.length === 0 || isText || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    distribute(files, inputs());
  });
}

/** Gives files to an input, and what it does not take to the empty ones after it. */
async function distribute(files, inputs, target) {
  const first = target ?? inputs.find((input) => input.pictures.length < input.many) ?? inputs[0];
  if (!first) return;
  let rest = await first.add(files);
  for (const input of inputs.slice(inputs.indexOf(first) + 1)) {
    if (rest.length > 0 && input.pictures.length === 0) rest = input.take(rest);
  }
}
