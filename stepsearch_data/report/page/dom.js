// Elements, and how values are written. Whatever comes from the data goes in as text, never as HTML.

/** @import { Facts } from "./shapes.js" */
/** @typedef {Node | string | false | null | undefined | Child[]} Child */
/** @typedef {string | number | boolean | null | undefined | ((event: any) => void)} Attribute */
/** @typedef {string | number | null} Cell */

/**
 * An element: `el("a.row", {href: "#/"}, "text", child)`. Functions are listeners; null and false are left out.
 * @param {string} kind a tag and classes
 * @param {{ [name: string]: Attribute }} attributes
 * @param {...Child} children
 */
export function el(kind, attributes = {}, ...children) {
  const [tag, ...classes] = kind.split(".");
  const node = document.createElement(tag);
  if (classes.length) node.className = classes.join(" ");
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== null && value !== undefined && value !== false)
      node.setAttribute(name, value === true ? "" : String(value));
  }
  const given = /** @type {any[]} */ (children).flat(Infinity);
  node.append(...given.filter((child) => child instanceof Node || typeof child === "string"));
  return node;
}

/**
 * An element that the page itself holds.
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} kind
 */
export function own(id, kind) {
  const node = document.getElementById(id);
  if (node instanceof kind) return node;
  throw new Error(`the page has no ${id}`);
}

/** A number for people: whole ones with commas, others with at most three decimals. @param {number} value */
export function number(value, decimals = Math.abs(value) < 10 ? 3 : 1) {
  return value.toLocaleString("en", { maximumFractionDigits: decimals });
}

/**
 * A signed number with two decimals and a true minus, so that a column of them is read at a glance.
 * @param {number} value
 */
export function signed(value) {
  return value.toFixed(2).replace("-0.00", "0.00").replace("-", "−");
}

/** "1 hop", "2 hops"; "2 queries" where the plural is another word. @param {number} count @param {string} one */
export function counted(count, one, many = `${one}s`) {
  return `${number(count)} ${count === 1 ? one : many}`;
}

/** What a column's name says in words: "not_english" is "not english". @param {string} name */
export function spoken(name) {
  return name.replaceAll("_", " ");
}

/** What share of a whole a count is. @param {number} count @param {number | null} whole */
export function percent(count, whole) {
  return whole ? `${number((100 * count) / whole, 1)} %` : "";
}

/** A count, which leads to the list of what it counts. @param {string} text @param {string | null | undefined} list */
export function counting(text, list) {
  return list?.startsWith("#/") ? el("a", { href: list }, text) : text;
}

/** A button. @param {string} text @param {(event: Event) => void} pressed */
export function button(text, pressed) {
  return el("button", { type: "button", click: pressed }, text);
}

/** A bar of `share` (0 to 1) of its width, for eyes only: the number stands beside it. @param {number} share */
export function bar(share, look = "") {
  const fill = el("span");
  fill.style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
  return el(`span.bar${look && `.${look}`}`, { "aria-hidden": "true" }, fill);
}

/** Text as nodes, with every occurrence of these words marked. @param {string} text @param {string[]} words */
export function marked(text, words) {
  const wanted = words.filter(Boolean).map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  if (!wanted.length) return [text];
  return text
    .split(new RegExp(`(${wanted.join("|")})`, "giu"))
    .map((part, at) => (at % 2 ? el("mark", {}, part) : part));
}

/** A long text folded behind its first words, a short one as it is. @param {string} text */
export function folded(text, limit = 160) {
  if (text.length <= limit && !text.includes("\n")) return text;
  const start = text.slice(0, limit / 2).split("\n")[0];
  return el("details.long", {}, el("summary", {}, `${start.trim()} …`), el("pre", {}, text));
}

/**
 * A link, where the address is one of the web; otherwise just its text.
 * @param {string | null} address
 * @param {string} text
 */
export function link(address, text) {
  const web = /^https?:\/\//i.test(address ?? "");
  return web ? el("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, text) : text;
}

/** A value of a table's cell. @param {Cell} value @param {boolean} right @param {string} [list] what it counts */
function cell(value, right, list) {
  if (value === null || value === undefined) return el("td.none", {}, "–");
  if (typeof value === "number") return el("td.number", {}, counting(number(value), value ? list : null));
  return el(right ? "td.number" : "td", {}, list ? counting(value, list) : folded(value));
}

/**
 * A table that scrolls in itself where the screen is narrow. The title is its caption, for those who hear it; counts
 * lead to their lists.
 * @param {Facts} facts
 */
export function table({ title, columns, rows, links }) {
  /** @param {number} at */
  const numeric = (at) => rows.some((row) => typeof row[at] === "number" || / %$/.test(String(row[at])));
  const head = columns.map((column, at) => el(numeric(at) ? "th.number" : "th", { scope: "col" }, column));
  return el(
    "div.scroll",
    { tabindex: "0", role: "group", "aria-label": title },
    el(
      "table",
      {},
      el("caption.unseen", {}, title),
      el("thead", {}, el("tr", {}, head)),
      el(
        "tbody",
        {},
        rows.map((row, line) =>
          el(
            "tr",
            {},
            row.map((value, at) => cell(value, numeric(at), links[line]?.[columns[at]])),
          ),
        ),
      ),
    ),
  );
}

/** Tell it to a screen reader. @param {string} text */
export function say(text) {
  own("said", HTMLElement).textContent = text;
}
