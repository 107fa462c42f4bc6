// Search: pictures of an index that are nearest to a text or to a picture.

import { call, callJson, hasKey, ownAddress } from "./api.js";
import { announce, byId, counted, el } from "./dom.js";
import { showCode } from "./code.js";
import { Placeholder } from "./form.js";
import { PictureInput, dataUrl, openPicture } from "./pictures.js";

const ROUTE = "v1/search";

/** The search view. `use` takes a picture to a task; `changed` is called when another index is chosen. */
export class SearchView {
  constructor({ use, changed }) {
    this.use = use;
    this.changed = changed;
    this.indexes = [];
    this.mode = "text";
    this.running = null;
    this.blobs = [];
    this.input = new PictureInput({ label: "Picture", many: 1, changed: () => this.#pictureChanged() });
    this.input.element.setAttribute("role", "group");
    this.input.element.setAttribute("aria-label", "Picture to search by");
    byId("search-picture").append(this.input.element);
    this.#listen();
  }

  #listen() {
    byId("search-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.run();
    });
    for (const mode of ["text", "picture"]) {
      byId(`search-by-${mode}`).addEventListener("change", () => this.#setMode(mode));
    }
    byId("search-text").addEventListener("input", () => {
      this.#problem(null);
      this.sketch();
    });
    byId("search-limit").addEventListener("change", () => this.sketch());
    byId("search-index").addEventListener("change", () => {
      this.changed();
      this.sketch();
    });
    byId("found-close").addEventListener("click", () => byId("found-dialog").close());
  }

  /** Asks which indexes the server has. Without an answer there are none, and tasks can still be run. */
  async load() {
    try {
      const { data } = await callJson(ROUTE);
      this.indexes = Array.isArray(data) ? data : [];
    } catch (error) {
      console.warn(error);
      this.indexes = [];
    }
    const options = this.indexes.map(({ id, pictures }) =>
      el("option", { value: id, text: `${id}${counts(pictures)}` }),
    );
    byId("search-index").replaceChildren(...options);
    byId("search-index-field").hidden = options.length < 2;
    const only = this.indexes.length === 1 ? this.indexes[0] : null;
    const where = only ? `“${only.id}”${counts(only.pictures)}` : "a folder";
    byId("search-about").textContent = `Finds the pictures of ${where} that are nearest to a text or to a picture.`;
  }

  index() {
    return byId("search-index").value;
  }

  /** Chooses an index by its name; the first one if there is none of that name. */
  choose(id) {
    const known = this.indexes.some((index) => index.id === id);
    if (known) byId("search-index").value = id;
    this.sketch();
  }

  #setMode(mode) {
    this.mode = mode;
    byId(`search-by-${mode}`).checked = true;
    byId("search-text-field").hidden = mode !== "text";
    byId("search-picture").hidden = mode !== "picture";
    this.#problem(null);
    this.sketch();
  }

  #pictureChanged() {
    if (this.input.pictures.length > 0) this.#setMode("picture");
    this.#problem(null);
  }

  #problem(text) {
    byId("search-problem").hidden = text === null;
    byId("search-problem").textContent = text ?? "";
    byId("search-text").setAttribute("aria-invalid", String(text !== null && this.mode === "text"));
  }

  #body(query) {
    return { index: this.index(), ...query, limit: Number(byId("search-limit").value) };
  }

  /** Shows the request that the form makes. */
  sketch() {
    const query =
      this.mode === "text" ? { query: byId("search-text").value } : { image: new Placeholder("picture.png") };
    showCode(ROUTE, this.#body(query));
  }

  async #query() {
    if (this.mode === "text") {
      const query = byId("search-text").value;
      return query.trim() === "" ? null : { query };
    }
    const [picture] = this.input.pictures;
    return picture ? { image: await dataUrl(picture) } : null;
  }

  /** Searches, and shows what was found. A search that is running is given up. */
  async run() {
    this.running?.abort();
    const running = new AbortController();
    this.running = running;
    const status = byId("search-status");
    const results = byId("search-results");
    try {
      const query = await this.#query();
      if (query === null) {
        this.#problem(this.mode === "text" ? "Write what to search for." : "Choose a picture to search by.");
        (this.mode === "text" ? byId("search-text") : this.input.file).focus();
        return;
      }
      this.#problem(null);
      results.setAttribute("aria-busy", "true");
      status.textContent = "Searching";
      const { data } = await callJson(ROUTE, { body: JSON.stringify(this.#body(query)), signal: running.signal });
      await this.#show(Array.isArray(data) ? data : [], running.signal);
    } catch (error) {
      if (running.signal.aborted) return;
      status.textContent = "";
      this.#problem(error.message);
    } finally {
      if (this.running === running) results.setAttribute("aria-busy", "false");
    }
  }

  async #show(found, signal) {
    for (const url of this.blobs.splice(0)) URL.revokeObjectURL(url);
    byId("search-status").textContent =
      found.length === 0 ? "Nothing was found" : `${counted(found.length, "picture")}, the nearest first`;
    byId("search-results").replaceChildren(...found.map((one) => this.#card(one, signal)));
  }

  #card({ key, score, picture }, signal) {
    const name = String(key);
    const short = name.split("/").pop();
    const place = el("span", { class: "card-picture" });
    const number = Number.isFinite(score) ? score.toFixed(3) : "";
    const card = el(
      "button",
      { type: "button", class: "card", onclick: () => this.#open({ name, number, picture }, place) },
      place,
      el(
        "span",
        { class: "card-text" },
        el("span", { class: "card-key", text: short, title: name }),
        el("span", { class: "card-score", text: number }),
      ),
    );
    this.#fill(place, picture, signal);
    return el("li", {}, card);
  }

  /** Shows a stored picture. A key cannot be sent with `src`, so then the picture is fetched. */
  async #fill(place, route, signal) {
    try {
      const own = typeof route === "string" ? ownAddress(route) : null;
      if (own === null) throw new Error("there is no picture");
      let src = own;
      if (hasKey()) {
        src = URL.createObjectURL(await this.#blob(own, signal));
        this.blobs.push(src);
      }
      const image = el("img", { alt: "", loading: "lazy", decoding: "async", onerror: () => noPicture(place) });
      image.src = src;
      place.replaceChildren(image);
    } catch {
      if (!signal.aborted) noPicture(place);
    }
  }

  async #blob(own, signal) {
    return (await call(own, { signal })).blob();
  }

  #open({ name, number, picture }, place) {
    const dialog = byId("found-dialog");
    byId("found-title").textContent = name;
    byId("found-score").textContent = number === "" ? "" : `Score ${number}`;
    const image = place.querySelector("img");
    byId("found-picture").replaceChildren(
      image ? el("img", { src: image.src, alt: name }) : el("span", { class: "no-preview", text: "no picture" }),
    );
    const take = (label, then) =>
      el("button", {
        type: "button",
        class: "secondary",
        text: label,
        disabled: !image,
        onclick: () => this.#take(name, picture, then),
      });
    byId("found-actions").replaceChildren(
      take("Search by this picture", (opened) => {
        this.input.take([opened]);
        this.run();
      }),
      take("Use it in a task", (opened) => this.use(opened)),
    );
    dialog.showModal();
  }

  async #take(name, route, then) {
    try {
      const blob = await this.#blob(ownAddress(route));
      byId("found-dialog").close();
      then(await openPicture(blob, name.split("/").pop()));
    } catch (error) {
      byId("found-score").textContent = error.message;
      announce(error.message);
    }
  }
}

function counts(pictures) {
  return Number.isFinite(pictures) ? ` (${counted(pictures, "picture")})` : "";
}

function noPicture(place) {
  place.replaceChildren(el("span", { class: "no-preview", text: "no picture" }));
}
