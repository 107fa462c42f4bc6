// The page: which model, task and view are shown, and what its address says of them.

import { callJson, hasKey, onKey, setKey } from "./api.js";
import { showCode, startCode } from "./code.js";
import { byId, el, store } from "./dom.js";
import { TaskForm } from "./form.js";
import { takeDropsAndPastes } from "./pictures.js";
import { Runner } from "./run.js";
import { SearchView } from "./search.js";

const state = { models: [], model: null, tasks: [], broken: [], form: null, view: "tasks" };
const runner = new Runner();
const search = new SearchView({ use: takeToTask, changed: () => remember() });

/** Reads what the address says, such as `#task=caption&model=own` or `#search=photos`. */
function addressed() {
  return new URLSearchParams(location.hash.slice(1));
}

/** Makes the address of a view. It is whole, since `base` of the page can differ from where the page is. */
function addressOf({ view = state.view, task = state.form?.task.name, model = state.model } = {}) {
  const named = new URLSearchParams();
  if (view === "search") named.set("search", search.index());
  else if (task) named.set("task", task);
  if (view !== "search" && state.models.length > 1) named.set("model", model);
  return `${location.href.split("#")[0]}#${named}`;
}

/** Writes into the address what is shown, without an entry in the history. */
function remember() {
  history.replaceState(null, "", addressOf());
}

/** Loads what the server has, and shows what the address says. */
async function start() {
  const { data } = await callJson("v1/models");
  state.models = data;
  byId("model").replaceChildren(...data.map(({ id }) => el("option", { value: id, text: id })));
  byId("model-field").hidden = data.length < 2;
  await Promise.all([search.load(), loadTasks(addressed().get("model"))]);
  byId("views").hidden = search.indexes.length === 0;
  await follow();
}

/** Does what needs the server, and shows above the page why it failed. */
async function attempt(act) {
  byId("failed").hidden = true;
  try {
    await act();
  } catch (error) {
    console.warn(error);
    byId("failed-message").textContent = error.message;
    byId("failed").hidden = false;
  } finally {
    document.body.classList.remove("loading");
  }
}

/** Loads the tasks of a model; of the first one if there is none of that name. */
async function loadTasks(name) {
  const model = state.models.find(({ id }) => id === name) ?? state.models[0];
  const { data, broken } = await callJson(`v1/tasks?${new URLSearchParams({ model: model.id })}`);
  Object.assign(state, { model: model.id, tasks: data, broken: broken ?? [] });
  byId("model").value = model.id;
  listTasks();
}

function listTasks() {
  const wanted = byId("filter").value.trim().toLowerCase();
  const fits = ({ name, description }) => `${name} ${description}`.toLowerCase().includes(wanted);
  const tasks = state.tasks.filter(fits);
  const group = (isTrained, id) => {
    const links = tasks.filter((task) => (task.trained !== false) === isTrained).map(taskLink);
    byId(id).hidden = links.length === 0;
    byId(id)
      .querySelector("ul")
      .replaceChildren(...links);
  };
  group(true, "tasks-trained");
  group(false, "tasks-untrained");
  byId("tasks-none").hidden = tasks.length > 0;
  byId("tasks-broken").hidden = state.broken.length === 0;
  // The first line says what is wrong; those after it show how a file looks.
  const about = (error) => String(error).split("\n")[0];
  const broken = state.broken.map(({ file, error }) =>
    el("li", {}, el("strong", { text: file }), el("span", { text: about(error) })),
  );
  byId("tasks-broken")
    .querySelector("ul")
    .replaceChildren(...broken);
  markTask();
}

function taskLink({ name, description }) {
  const href = addressOf({ view: "tasks", task: name });
  const link = el(
    "a",
    { href },
    el("span", { class: "task-name", text: name }),
    el("span", { class: "task-about", text: description }),
  );
  link.dataset.task = name;
  return el("li", {}, link);
}

function markTask() {
  const shown = state.form?.task.name;
  for (const link of byId("tasks").querySelectorAll("a")) {
    if (link.dataset.task === shown) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

/** Shows what the address says. */
async function follow() {
  const named = addressed();
  const model = named.get("model");
  if (model !== null && model !== state.model && state.models.some(({ id }) => id === model)) await loadTasks(model);
  const isSearch = named.has("search") && search.indexes.length > 0;
  state.view = isSearch ? "search" : "tasks";
  byId("task-view").hidden = isSearch;
  byId("side").hidden = isSearch;
  byId("search-view").hidden = !isSearch;
  document.body.classList.toggle("searching", isSearch);
  const called = (wanted) => state.tasks.find(({ name }) => name === wanted);
  const task = called(named.get("task")) ?? called(state.form?.task.name) ?? state.tasks[0];
  if (task) showTask(task);
  if (isSearch) search.choose(named.get("search"));
  setLink("view-tasks", "tasks");
  setLink("view-search", "search");
  closeTasks();
  remember();
}

function setLink(id, view) {
  const link = byId(id);
  link.href = addressOf({ view });
  if (state.view === view) link.setAttribute("aria-current", "page");
  else link.removeAttribute("aria-current");
}

function showTask(task) {
  document.title = state.view === "search" ? "Search · multiway" : `${task.name} · multiway`;
  if (state.form?.task !== task) {
    const model = state.models.find(({ id }) => id === state.model);
    const maxPictures = model?.max_images ?? 1;
    state.form = new TaskForm(task, { maxPictures, changed: sketch, before: state.form });
    state.form.show(byId("fields"), byId("sampling-fields"));
    byId("sampling").hidden = !state.form.hasSampling();
    byId("explain-field").hidden = !state.form.canExplain();
    byId("task-name").textContent = task.name;
    byId("tasks-shown").textContent = task.name;
    byId("task-about").textContent = task.description;
    byId("task-untrained").hidden = task.trained !== false;
    byId("error").hidden = true;
    runner.clear();
    markTask();
    window.scrollTo(0, 0);
  }
  sketch();
}

/** What the request has beside the inputs. */
function extra() {
  const asked = {};
  if (state.models.length > 1) asked.model = state.model;
  if (state.form.canExplain() && state.form.hasPicture() && byId("explain").checked) asked.explain = true;
  return asked;
}

/** Shows the request that the view makes. */
function sketch() {
  if (state.view === "search") return search.sketch();
  // Fields say that they changed while their form is still being made.
  if (!state.form) return undefined;
  return showCode(`v1/tasks/${encodeURIComponent(state.form.task.name)}`, state.form.sketch(extra()));
}

async function runTask() {
  const done = runner.run(state.form, extra());
  // On a narrow screen the answer is below the form.
  if (runner.running) byId("result").scrollIntoView({ block: "nearest" });
  await done;
}

/** Takes a picture that was found to the task that is shown, or to the first one that takes pictures. */
async function takeToTask(picture) {
  const takes = ({ inputs }) => Object.values(inputs).some(({ type }) => type === "image" || type === "images");
  const task = state.form && takes(state.form.task) ? state.form.task : state.tasks.find(takes);
  if (!task) return;
  location.href = addressOf({ view: "tasks", task: task.name });
  await follow();
  const field = state.form.pictureFields()[0];
  const { input } = field;
  // Where there is no room for another one, it takes the place of the last.
  if (input.take([picture]).length > 0) input.set([...input.pictures.slice(0, -1), picture]);
  field.focus();
}

function closeTasks() {
  byId("tasks-toggle").setAttribute("aria-expanded", "false");
}

/** Asks for an API key; gives back null where none is given. */
function askForKey(isRefused) {
  const dialog = byId("key-dialog");
  byId("key-problem").hidden = !isRefused;
  byId("key-problem").textContent = "The server does not accept this key.";
  byId("key").value = "";
  byId("key-forget").hidden = !hasKey();
  dialog.returnValue = "";
  dialog.showModal();
  byId("key").focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "use" ? byId("key").value.trim() : null), {
      once: true,
    });
  });
}

function listenToKeys() {
  onKey(askForKey, (has) => {
    byId("key-button").hidden = !has;
    sketch();
  });
  byId("key-form").addEventListener("submit", (event) => {
    // A header holds no other characters.
    if (event.submitter?.value !== "use" || /^[!-~]+$/.test(byId("key").value.trim())) return;
    event.preventDefault();
    byId("key-problem").textContent = "A key has letters, digits and punctuation, without spaces.";
    byId("key-problem").hidden = false;
  });
  byId("key-cancel").addEventListener("click", () => byId("key-dialog").close("cancel"));
  byId("key-forget").addEventListener("click", () => {
    setKey(null);
    byId("key-dialog").close("cancel");
  });
  byId("key-button").addEventListener("click", async () => {
    const key = await askForKey(false);
    if (key !== null) setKey(key);
  });
}

function listen() {
  window.addEventListener("hashchange", () => attempt(follow));
  byId("retry").addEventListener("click", () => attempt(start));
  byId("model").addEventListener("change", () => (location.href = addressOf({ model: byId("model").value })));
  byId("filter").addEventListener("input", listTasks);
  byId("tasks-toggle").addEventListener("click", () => {
    const isOpen = byId("tasks-toggle").getAttribute("aria-expanded") === "true";
    byId("tasks-toggle").setAttribute("aria-expanded", String(!isOpen));
  });
  byId("form").addEventListener("submit", (event) => {
    event.preventDefault();
    runTask();
  });
  byId("form").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("form").requestSubmit();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
    closeTasks();
    runner.stop();
  });
  byId("explain").addEventListener("change", sketch);
  byId("skip").addEventListener("click", () =>
    (state.view === "search" ? byId("search-text") : state.form?.fields[0])?.focus(),
  );
  byId("theme").addEventListener("click", () => {
    const dark = window.matchMedia("(prefers-color-scheme: dark)").matches;
    const shown = document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
    const next = shown === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    store("localStorage", "multiway.theme", next);
  });
  takeDropsAndPastes(() =>
    state.view === "search" ? [search.input] : (state.form?.pictureFields() ?? []).map((field) => field.input),
  );
}

listen();
listenToKeys();
startCode();
attempt(start);
