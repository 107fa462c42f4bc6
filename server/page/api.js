// Requests to the server: addresses, the API key, errors and streams of events.

import { store, stored } from "./dom.js";

/** Where the server's routes start; a proxy may put a path before them. */
const ROOT = new URL("..", import.meta.url);

const KEY = "multiway.key";

let key = stored("sessionStorage", KEY);
let askForKey = async () => null;
let asking = null;
let keyChanged = () => {};

/** Says how a key is asked for, and what happens when it changes. `ask` gives a key, or null. */
export function onKey(ask, changed) {
  askForKey = ask;
  keyChanged = changed;
  changed(key !== null);
}

/** Tells whether requests bring a key. */
export function hasKey() {
  return key !== null;
}

/** Sets the key that requests bring; null for none. */
export function setKey(next) {
  key = next;
  store("sessionStorage", KEY, next);
  keyChanged(key !== null);
}

/** An error that the server told, or why there is no answer of it. */
export class ApiError extends Error {
  constructor(message, { param = null, status = 0 } = {}) {
    super(message);
    this.name = "ApiError";
    this.param = param;
    this.status = status;
  }
}

/** Makes the absolute address of a route. */
export function address(route) {
  return new URL(route, ROOT).href;
}

/** Makes the address of a route that the server named; null where it leads to another server. */
export function ownAddress(route) {
  try {
    const url = new URL(route, ROOT);
    return url.origin === ROOT.origin && url.pathname.startsWith(ROOT.pathname) ? url.href : null;
  } catch {
    return null;
  }
}

/** Sends a request, with the key if there is one, and asks for one if the server wants it. */
export async function call(route, { body, signal } = {}) {
  for (;;) {
    const used = key;
    const response = await send(route, { body, signal }, used);
    if (response.status !== 401) {
      if (response.ok) return response;
      throw errorOf(await json(response), response.status);
    }
    // Another request can have brought a new key in the meantime.
    if (key === used) await newKey(used !== null);
    signal?.throwIfAborted();
  }
}

async function send(route, { body, signal }, used) {
  const headers = {};
  if (used !== null) headers.Authorization = `Bearer ${used}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const method = body === undefined ? "GET" : "POST";
  try {
    return await fetch(address(route), { method, headers, body, signal });
  } catch (error) {
    if (signal?.aborted) throw error;
    const large = (body?.length ?? 0) > 1e6 ? ", or it refused a body of this size" : "";
    throw new ApiError(`The server cannot be reached${large}.`);
  }
}

async function newKey(isRefused) {
  asking ??= askForKey(isRefused).finally(() => (asking = null));
  const next = await asking;
  if (next === null) throw new ApiError("The server answers with an API key only.", { status: 401 });
  if (next !== key) setKey(next);
}

async function json(response) {
  try {
    return await response.json();
  } catch {
    return null;
  }
}

function errorOf(body, status) {
  const error = body?.error;
  if (typeof error?.message !== "string") return new ApiError(`The server answered with status ${status}.`, { status });
  return new ApiError(error.message, { param: error.param ?? null, status });
}

/** Sends a request and reads its answer as JSON. */
export async function callJson(route, options) {
  const response = await call(route, options);
  const body = await json(response);
  if (body === null) throw new ApiError("The server answered with something that is not JSON.");
  return body;
}

/** Reads the events of a stream to its end; `[DONE]` says nothing that the end does not. */
export async function* events(response) {
  for await (const data of eventData(response.body)) {
    if (data === "[DONE]") continue;
    const event = parsed(data);
    if (event?.error) throw errorOf(event, response.status);
    yield event;
  }
}

function parsed(data) {
  try {
    return JSON.parse(data);
  } catch {
    throw new ApiError("The server sent an event that is not JSON.");
  }
}

/** Reads the `data` of server-sent events; other fields and comments are left out. */
async function* eventData(body) {
  let data = [];
  for await (const line of lines(body)) {
    if (line.startsWith("data:")) data.push(line.slice(line.startsWith("data: ") ? 6 : 5));
    if (line !== "" || data.length === 0) continue;
    yield data.join("\n");
    data = [];
  }
}

async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const all = (rest + value).split("\n");
      rest = all.pop();
      for (const line of all) yield line.endsWith("\r") ? line.slice(0, -1) : line;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
