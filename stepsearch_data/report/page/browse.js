// The list of trajectories: search, filters, pages. What is chosen stands in the page's address.

import { question, searched } from "./data.js";
import { bar, counted, el, marked, number, say, signed, spoken } from "./dom.js";
import { MARKED, MARKS } from "./marks.js";
import { address } from "./place.js";

/** @import { Row, Source } from "./data.js" */
/** @import { View } from "./place.js" */
/** @import { Facets, Summary } from "./shapes.js" */
/** @typedef {(params: URLSearchParams) => void} Change */

export const PAGE = 50; // trajectories on a page
/** @type {[string, string][]} */
const ORDERS = [
  ["", "as in the store"],
  ["-reward", "reward, highest first"],
  ["reward", "reward, lowest first"],
  ["-gain", "information gain, highest first"],
  ["-redundancy", "redundancy, highest first"],
  ["share", "fewest queries kept"],
  ["-hops", "most hops"],
  ["question", "question, A to Z"],
];
/** @type {[string, string][]} */
const YES_NO = [
  ["true", "yes"],
  ["false", "no"],
];

/**
 * The list, filtered as `params` say; `change` is called with others when somebody chooses them.
 * @param {Source} source
 * @param {URLSearchParams} params
 * @param {Change} change
 */
export async function browse(source, params, change) {
  const about = await source.summary();
  const results = el("div", { id: "results" });
  const form = filters(about, params, change);
  let turns = 0;
  /** @param {URLSearchParams} changed */
  const update = async (changed) => {
    const turn = ++turns;
    const offset = Math.max(0, Number(changed.get("offset")) || 0);
    const { total, rows } = await source.list(changed, offset, PAGE);
    if (turn === turns) fill(results, changed, offset, total, rows); // else a later question was faster
  };
  /** @type {View} */
  const view = {
    title: "Trajectories",
    node: el("article", {}, el("h1", { tabindex: "-1" }, "Trajectories"), form, results),
    update,
    keys: { j: () => step(results, 1, view), k: () => step(results, -1, view) },
  };
  results.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    event.preventDefault();
    step(results, event.key === "ArrowDown" ? 1 : -1, view);
  });
  await update(params);
  return view;
}

/**
 * The form. Every change of it becomes the page's address, and the address what is shown.
 * @param {Summary} about
 * @param {URLSearchParams} params
 * @param {Change} change
 */
function filters({ facets, charts }, params, change) {
  /** @param {keyof Facets} name @returns {[string, string][]} */
  const values = (name, say = spoken) =>
    facets[name].map((value) => [String(value), value === "" ? "none" : say(String(value))]);
  const form = /** @type {HTMLFormElement} */ (
    el(
      "form.filters",
      { role: "search", "aria-label": "Trajectories", submit: (event) => event.preventDefault() },
      el(
        "label.wide",
        {},
        el("span", {}, "Search"),
        el("input", {
          id: "search",
          type: "search",
          name: "text",
          placeholder: "words of question, answer or id",
          autocomplete: "off",
          spellcheck: "false",
        }),
      ),
      el(
        "details.more",
        { open: matchMedia("(min-width: 48rem)").matches },
        el("summary", {}, "Filters and order"),
        el(
          "div.fields",
          {},
          choice("source", "Source", values("source")),
          choice("type", "Type", values("type")),
          choice(
            "hops",
            "Hops",
            values("hops", (value) => counted(Number(value), "hop")),
          ),
          choice("difficulty", "Difficulty", values("difficulty")),
          choice("passed", "Gates", [
            ["true", "passed"],
            ["false", "failed"],
          ]),
          choice("flags", "Failed gate", values("flags"), 1),
          choice("rejected_by", "Rejected by", values("rejected_by")),
          charts.some(({ id }) => id === "agreement") && choice("disagree", "Engines disagree", YES_NO),
          choice(
            "marks",
            "Marked",
            values("marks", (value) => MARKS[value]),
          ),
          choice("split", "Split", values("split")),
          choice("complete", "Complete", YES_NO),
          choice("answerable", "Answerable", YES_NO),
          range("share", "Share of queries kept", 0.05),
          range("reward", "Reward, G − P", 0.1),
          choice("sort", "Order", ORDERS, 1),
          el("button", { type: "reset" }, "Clear"),
        ),
      ),
    )
  );
  for (const [name, value] of params) {
    const field = form.elements.namedItem(name);
    if (field instanceof HTMLInputElement || field instanceof HTMLSelectElement) field.value = value;
  }
  let waiting = 0;
  form.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => change(chosen(form)), 80);
  });
  form.addEventListener("reset", () => setTimeout(() => change(chosen(form))));
  return form;
}

/**
 * A field to choose a value in; there is none where there is nothing to choose. "any" is no value.
 * @param {string} name
 * @param {string} label
 * @param {[string, string][]} values each with its text
 */
function choice(name, label, values, least = 2) {
  if (values.length < least) return null;
  const any = name === "sort" ? [] : [el("option", { value: "any" }, "any")];
  return el(
    "label",
    {},
    el("span", {}, label),
    el(
      "select",
      { name },
      any,
      values.map(([value, text]) => el("option", { value }, text)),
    ),
  );
}

/** @param {string} name @param {string} label @param {number} step */
function range(name, label, step) {
  /** @param {string} which @param {string} text */
  const end = (which, text) =>
    el("input", {
      type: "number",
      name: `${name}_${which}`,
      step,
      placeholder: text,
      "aria-label": `${label}, ${text}`,
    });
  return el("fieldset", {}, el("legend", {}, label), end("min", "least"), " – ", end("max", "most"));
}

/** @param {HTMLFormElement} form */
function chosen(form) {
  const all = [...new FormData(form)].map(([name, value]) => [name, String(value).trim()]);
  return new URLSearchParams(all.filter(([name, value]) => value !== "any" && (value || name === "split")));
}

/**
 * @param {Element} results
 * @param {URLSearchParams} params
 * @param {number} offset
 * @param {number} total
 * @param {Row[]} rows
 */
function fill(results, params, offset, total, rows) {
  const told = total ? counted(total, "trajectory", "trajectories") : "Nothing found";
  results.replaceChildren(
    el("p.total", {}, told),
    rows.length
      ? el(
          "ol.rows",
          { start: offset + 1 },
          rows.map((row, at) => line(row, params, offset + at)),
        )
      : nothing(total, params),
    pages(params, offset, total) ?? "",
  );
  say(told);
}

/** @param {number} total @param {URLSearchParams} params */
function nothing(total, params) {
  const asked = question(params).toString();
  return el(
    "p.quiet",
    {},
    total
      ? "This page is past the last one."
      : asked
        ? "Fewer words or filters find more."
        : "The store has no trajectories yet.",
  );
}

/** @param {Row} row @param {URLSearchParams} params @param {number} at */
function line(row, params, at) {
  const there = question(params);
  there.set("at", String(at));
  const words = searched(params);
  const failed = row.flags.length > 0 && el("span.flag", {}, `⚑ ${row.flags.map(spoken).join(", ")}`);
  return el(
    "li.row",
    {},
    el("a", { href: address(there, row.id), "data-id": row.id }, marked(row.question, words)),
    el("p.answer", {}, marked(row.answer, words)),
    el(
      "p.facts",
      {},
      el("span", {}, row.source),
      el("span", {}, counted(row.hops, "hop")),
      row.split && el("span", {}, row.split),
      !row.complete && el("span", {}, "not complete"),
      failed,
      row.marks.filter((mark) => mark !== "none").map((mark) => el(`span.${mark}`, {}, MARKED[mark])),
    ),
    measure("kept", `${row.kept}/${row.queries}`, row.kept / row.queries),
    measure("reward", signed(row.reward), row.reward / row.hops),
  );
}

/** @param {string} name @param {string} text @param {number} share */
function measure(name, text, share) {
  return el("p.measure", {}, el("span.name", {}, name), " ", el("span.value", {}, text), bar(share || 0));
}

/**
 * Links to the pages of a list, whose addresses `at` gives.
 * @param {URLSearchParams} params
 * @param {number} offset
 * @param {number} total
 */
export function pages(params, offset, total, size = PAGE, at = address) {
  if (total <= size && !offset) return null;
  /** @param {number} there @param {string} text @param {string} [rel] */
  const to = (there, text, rel) => {
    if (there < 0 || there >= total) return el("span.quiet", {}, text);
    const changed = question(params);
    if (there) changed.set("offset", String(there));
    return el("a", { href: at(changed), rel }, text);
  };
  const last = Math.floor((total - 1) / size) * size;
  return el(
    "nav.pages",
    { "aria-label": "Pages of results" },
    to(offset ? 0 : -1, "First"),
    to(offset ? Math.max(0, offset - size) : -1, "Previous", "prev"),
    el("span", {}, `${number(offset + 1)}–${number(Math.min(total, offset + size))} of ${number(total)}`),
    to(offset + size, "Next", "next"),
    to(offset < last ? last : -1, "Last"),
  );
}

/** The links of the results that an element holds. @param {Element} node @returns {HTMLElement[]} */
export function resultsIn(node) {
  return [...node.querySelectorAll(".row a")].filter((link) => link instanceof HTMLElement);
}

/**
 * Focus the next (or previous) result; after the last one the next page comes.
 * @param {Element} results
 * @param {1 | -1} way
 * @param {View} view
 */
export function step(results, way, view) {
  const links = resultsIn(results);
  const here = links.indexOf(/** @type {HTMLElement} */ (document.activeElement));
  const next = links[here + way] ?? (document.activeElement?.closest(".row") ? null : links[0]);
  if (next) return next.focus();
  const other = results.querySelector(`.pages a[rel="${way > 0 ? "next" : "prev"}"]`);
  if (!(other instanceof HTMLElement)) return;
  view.arriving = way;
  other.click();
}
