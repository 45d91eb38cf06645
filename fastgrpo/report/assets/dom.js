// Elements, numbers and texts. Everything that came out of a run reaches the page as text nodes: nothing here parses HTML.

function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "style") Object.assign(made.style, value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

function fill(place, ...children) {
  place.replaceChildren(...children.flat(9).filter(Boolean));
  return place;
}

// Characters that show nothing, or turn the writing direction: control codes, bidirectional marks, invisible spaces.
// U+200C and U+200D stay, as emoji and several scripts are joined by them.
const UNSEEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;

// The text as nodes, each unseen character as its code.
function shown(text) {
  const nodes = [];
  let from = 0;
  for (const match of text.matchAll(UNSEEN)) {
    if (match.index > from) nodes.push(text.slice(from, match.index));
    const code = match[0].codePointAt(0);
    nodes.push(el("span", { class: "control" }, code < 256 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16)}`));
    from = match.index + 1;
  }
  if (from < text.length) nodes.push(text.slice(from));
  return nodes;
}

function number(value) {
  if (value === null || value === undefined) return "-";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (Number.isInteger(value)) return value.toLocaleString("en");
  if (size >= 100) return value.toLocaleString("en", { maximumFractionDigits: 1 });
  return size < 0.001 ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

function percent(value) {
  return value === null || value === undefined ? "-" : `${(100 * value).toFixed(1)} %`;
}

function seconds(value) {
  if (value < 120) return `${value.toFixed(value < 10 ? 2 : 1)} s`;
  const minutes = Math.round(value / 60);
  return minutes < 120 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function written(value, form) {
  return form === "share" ? percent(value) : number(value);
}

// A table whose cells are text or nodes; columns named in `numbers` are set flush right.
function table(head, rows, numbers = []) {
  const kind = (i) => (numbers.includes(i) ? "number" : null);
  return el(
    "div",
    { class: "wide", tabindex: "0", role: "region", "aria-label": "table" },
    el(
      "table",
      {},
      head &&
        el(
          "thead",
          {},
          el(
            "tr",
            {},
            head.map((cell, i) => el("th", { scope: "col", class: kind(i) }, cell)),
          ),
        ),
      el(
        "tbody",
        {},
        rows.map((row) =>
          el(
            "tr",
            {},
            row.map((cell, i) => (cell instanceof Element && cell.tagName === "TD" ? cell : el("td", { class: kind(i) || "text" }, cell))),
          ),
        ),
      ),
    ),
  );
}

// What a script element of the page holds as gzip in base64.
async function unpack(packed) {
  const text = atob(packed),
    bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i); // several times as quick as Uint8Array.from
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

// Until the browser has painted what it has.
function painted() {
  return new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
}
