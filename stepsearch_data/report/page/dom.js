// Elements, and how values are written. Whatever comes from the data goes in as text, never as HTML.

/** An element: `el("a.row", {href: "#/"}, "text", child)`. Functions are listeners; null and false are left out. */
function el(kind, attributes = {}, ...children) {
  const [tag, ...classes] = kind.split(".");
  const node = document.createElement(tag);
  if (classes.length) node.className = classes.join(" ");
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== null && value !== undefined && value !== false)
      node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** A number for people: whole ones with commas, others with at most three decimals. */
function number(value, decimals = Math.abs(value) < 10 ? 3 : 1) {
  return value.toLocaleString("en", { maximumFractionDigits: decimals });
}

/** A signed number with two decimals and a true minus, so that a column of them is read at a glance. */
function signed(value) {
  return value.toFixed(2).replace("-0.00", "0.00").replace("-", "−");
}

/** "1 hop", "2 hops"; "2 queries" where the plural is another word. */
function counted(count, one, many = `${one}s`) {
  return `${number(count)} ${count === 1 ? one : many}`;
}

/** What a column's name says in words: "not_english" is "not english". */
function spoken(name) {
  return name.replaceAll("_", " ");
}

/** A bar of `share` (0 to 1) of its width, for eyes only: the number stands beside it. */
function bar(share, look = "") {
  const fill = el("span");
  fill.style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
  return el(`span.bar${look && `.${look}`}`, { "aria-hidden": "true" }, fill);
}

/** Text as nodes, with every occurrence of these words marked. */
function marked(text, words) {
  const wanted = words.filter(Boolean).map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  if (!wanted.length) return [text];
  return text
    .split(new RegExp(`(${wanted.join("|")})`, "giu"))
    .map((part, at) => (at % 2 ? el("mark", {}, part) : part));
}

/** A long text folded behind its first words, a short one as it is. */
function folded(text, limit = 160) {
  if (text.length <= limit && !text.includes("\n")) return text;
  const start = text.slice(0, limit / 2).split("\n")[0];
  return el("details.long", {}, el("summary", {}, `${start.trim()} …`), el("pre", {}, text));
}

/** A link, where the address is one of the web; otherwise just its text. */
function link(address, text) {
  const web = /^https?:\/\//i.test(address ?? "");
  return web ? el("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, text) : text;
}

/** A value of a table's cell. */
function cell(value) {
  if (value === null || value === undefined) return el("td.none", {}, "–");
  if (typeof value === "number") return el("td.number", {}, number(value));
  return el("td", {}, folded(String(value)));
}

/** A table that scrolls in itself where the screen is narrow; `name` is its caption for those who hear it. */
function table(name, columns, rows) {
  const numeric = (at) => rows.some((row) => typeof row[at] === "number");
  const head = columns.map((column, at) => el(numeric(at) ? "th.number" : "th", { scope: "col" }, column));
  return el(
    "div.scroll",
    { tabindex: "0", role: "group", "aria-label": name },
    el(
      "table",
      {},
      el("caption.unseen", {}, name),
      el("thead", {}, el("tr", {}, head)),
      el(
        "tbody",
        {},
        rows.map((row) => el("tr", {}, row.map(cell))),
      ),
    ),
  );
}

/** Tell it to a screen reader. */
function say(text) {
  document.getElementById("said").textContent = text;
}
