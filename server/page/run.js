// Running a task: the request, the answer as it streams, and stopping it.

import { ApiError, call, events } from "./api.js";
import { announce, byId, el } from "./dom.js";
import { answerText, outcomeParts } from "./result.js";

/** Runs one task at a time, and shows its answer. */
export class Runner {
  constructor() {
    this.running = null;
    byId("stop").addEventListener("click", () => this.stop());
    this.#setRunning(false);
  }

  stop() {
    this.running?.abort();
  }

  /** Forgets the answer, as for another task. */
  clear() {
    this.stop();
    this.running = null;
    this.#setRunning(false);
    status("");
    show(el("p", { class: "placeholder", text: "The answer appears here." }));
  }

  /** Runs the task of a form. */
  async run(form, extra) {
    if (this.running || !form.check()) return;
    const running = new AbortController();
    this.running = running;
    this.#setRunning(true);
    showError(null);
    status("Running");
    const live = el("p", { class: "answer-text streaming" });
    show(live);
    try {
      const pictures = form.pictures();
      const body = JSON.stringify(await form.request({ ...extra, stream: true }));
      const started = performance.now();
      const outcome = await read(form.task.name, body, running.signal, live);
      const seconds = (performance.now() - started) / 1000;
      if (this.running !== running) return;
      show(...shown(outcome, { kind: form.kind, pictures }));
      status(`Done in ${seconds.toFixed(2)} s`);
    } catch (error) {
      if (this.running === running) fail(error, form, live, running.signal.aborted);
    } finally {
      if (this.running === running) {
        this.running = null;
        this.#setRunning(false);
      }
    }
  }

  /** Run and Stop change roles, and the focus goes with them. */
  #setRunning(isRunning) {
    const [run, stop] = [byId("run"), byId("stop")];
    run.setAttribute("aria-disabled", String(isRunning));
    if (!isRunning && document.activeElement === stop) run.focus();
    stop.disabled = !isRunning;
    byId("answer").setAttribute("aria-busy", String(isRunning));
    byId("result").classList.toggle("running", isRunning);
  }
}

async function read(task, body, signal, live) {
  const response = await call(`v1/tasks/${encodeURIComponent(task)}`, { body, signal });
  let outcome = null;
  for await (const event of events(response)) {
    if (event?.type === "text") live.append(String(event.text));
    if (event?.type === "finished") outcome = event.outcome;
  }
  if (outcome === null) throw new ApiError("The answer broke off before its end.");
  return outcome;
}

/** Makes the parts of an answer; one that the page cannot read is shown as JSON. */
function shown(outcome, about) {
  try {
    return outcomeParts(outcome, about);
  } catch (error) {
    console.warn(error);
    return [el("pre", { class: "block wraps", tabindex: "0", text: JSON.stringify(outcome, null, 2) })];
  }
}

function fail(error, form, live, wasStopped) {
  live.classList.remove("streaming");
  if (wasStopped) {
    status("Stopped");
    if (live.textContent === "") show(el("p", { class: "placeholder", text: "Stopped before the first word." }));
    return;
  }
  status("Failed");
  const written = live.textContent;
  if (form.showProblem(error.message, error.param)) {
    show(el("p", { class: "placeholder", text: "The server refused an input; see its field." }));
    return;
  }
  showError(error.message);
  if (written === "") show();
  else show(answerText(written));
}

function show(...parts) {
  byId("answer").replaceChildren(...parts);
}

function status(text) {
  byId("status").textContent = text;
}

function showError(text) {
  byId("error").hidden = text === null;
  byId("error").textContent = text ?? "";
  if (text !== null) announce(text);
}
