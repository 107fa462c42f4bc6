// The request as curl and as Python, kept in step with the form.

import { address, hasKey } from "./api.js";
import { byId, copyButton, roving } from "./dom.js";
import { Placeholder } from "./form.js";

/** What stands for the key; the key itself is never shown. */
const KEY = "MULTIWAY_API_KEY";

const CURL_PICTURE = (fileName) => `data:image/png;base64,$(base64 < ${fileName} | tr -d '\\n')`;

let request = null;
let language = "curl";

/** Prepares the panel. */
export function startCode() {
  const tabs = [byId("code-curl"), byId("code-python")];
  roving(byId("code-tabs"), tabs);
  for (const tab of tabs) {
    tab.addEventListener("click", () => {
      language = tab.dataset.language;
      for (const other of tabs) other.setAttribute("aria-selected", String(other === tab));
      byId("code-panel").setAttribute("aria-labelledby", tab.id);
      draw();
    });
    tab.addEventListener("focus", () => tab.click());
  }
  byId("code-copy").append(copyButton("Copy", () => byId("code-text").textContent));
}

/** Shows a request: its route, and its body with placeholders for pictures. */
export function showCode(route, body) {
  request = { route, body };
  draw();
}

function draw() {
  if (request) byId("code-text").textContent = language === "curl" ? curl(request) : python(request);
}

/** Writes a request for a POSIX shell: a here-document, since an argument is too short for most pictures. */
function curl({ route, body }) {
  const escaped = (text) => text.replace(/[\\$`]/g, "\\$&");
  const picture = (placeholder) => `"${CURL_PICTURE(placeholder.fileName)}"`;
  const json = write(body, { text: (text) => escaped(JSON.stringify(text)), picture, word: String, step: "  " });
  const header = hasKey() ? ` -H "Authorization: Bearer $${KEY}"` : "";
  return `curl ${quoted(address(route))}${header} \\\n  -H 'Content-Type: application/json' -d @- <<END\n${json}\nEND`;
}

function quoted(text) {
  return /^[\w:/.%-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** Writes a request with Python's standard library. */
function python({ route, body }) {
  const picture = (placeholder) => `picture(${JSON.stringify(placeholder.fileName)})`;
  const word = (value) => ({ true: "True", false: "False", null: "None" })[String(value)] ?? String(value);
  const json = write(body, { text: JSON.stringify, picture, word, step: "    " }, "    ");
  const hasPictures = json.includes("picture(");
  const modules = [hasPictures && "base64", "json", hasKey() && "os", "urllib.request"].filter(Boolean);
  const reads = hasPictures
    ? `
def picture(path):
    with open(path, "rb") as file:
        return "data:image/png;base64," + base64.b64encode(file.read()).decode()


`
    : "";
  const header = hasKey() ? `\n    headers={"Authorization": "Bearer " + os.environ["${KEY}"]},` : "";
  return `import ${modules.join(", ")}

${reads}request = urllib.request.Request(
    ${JSON.stringify(address(route))},
    data=json.dumps(${json}).encode(),${header}
)
with urllib.request.urlopen(request) as answer:
    print(json.load(answer))`;
}

/** Writes a value as JSON looks, one line for each key of a mapping. */
function write(value, style, indent = "") {
  if (value instanceof Placeholder) return style.picture(value);
  if (typeof value === "string") return style.text(value);
  if (Array.isArray(value)) return `[${value.map((item) => write(item, style, indent)).join(", ")}]`;
  if (value === null || typeof value !== "object") return style.word(value);
  const inner = indent + style.step;
  const entries = Object.entries(value).map(
    ([name, item]) => `${inner}${style.text(name)}: ${write(item, style, inner)}`,
  );
  return entries.length === 0 ? "{}" : `{\n${entries.join(",\n")}\n${indent}}`;
}
