// The list of trajectories, page by page. What is chosen stands in the page's address.

import { question, searched } from "./data.js";
import { bar, counted, el, marked, number, say, signed, spoken } from "./dom.js";
import { takeAway } from "./files.js";
import { filters } from "./filters.js";
import { MARKED } from "./marks.js";
import { address } from "./place.js";

/** @import { Found, Row, Source } from "./data.js" */
/** @import { Change } from "./filters.js" */
/** @import { View } from "./place.js" */

export const PAGE = 50; // trajectories on a page
/** @type {{ [unit: string]: string }} */
const ONE = { hops: "hop", queries: "query", rounds: "round" };

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
  let asked = params;
  /** @param {URLSearchParams} changed */
  const update = async (changed) => {
    const turn = ++turns;
    const offset = Math.max(0, Number(changed.get("offset")) || 0);
    const found = await source.list(changed, offset, PAGE);
    if (turn !== turns) return; // a later question was faster
    asked = changed;
    fill(results, changed, offset, found, about.policies);
  };
  /** @type {View} */
  const view = {
    title: "Trajectories",
    node: el(
      "article",
      {},
      el("h1", { tabindex: "-1" }, "Trajectories"),
      form,
      explained(),
      takeAway(source, () => asked),
      results,
    ),
    update,
    shown: () => source.warm?.(),
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
 * @param {Element} results
 * @param {URLSearchParams} params
 * @param {number} offset
 * @param {Found} found
 * @param {string[]} policies
 */
function fill(results, params, offset, { total, parts, rows }, policies) {
  const of = Object.entries(parts).map(([unit, count]) => counted(count, ONE[unit], unit));
  const told = total ? [of.join(", "), counted(total, "trajectory", "trajectories")] : ["Nothing found"];
  results.replaceChildren(
    el("p.total", {}, told.filter(Boolean).join(" in ")),
    rows.length
      ? el(
          "ol.rows",
          { start: offset + 1 },
          rows.map((row, at) => line(row, params, offset + at, policies)),
        )
      : nothing(total, params),
    pages(params, offset, total) ?? "",
  );
  say(told.filter(Boolean).join(" in "));
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

/** @param {Row} row @param {URLSearchParams} params @param {number} at @param {string[]} policies */
function line(row, params, at, policies) {
  const there = question(params);
  there.set("at", String(at));
  const words = searched(params);
  const failed = row.flags.length > 0 && el("span.flag", {}, `⚑ ${row.flags.map(spoken).join(", ")}`);
  const found = elsewhere(row, words);
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
      policies.map((name, of) => answer(name, row.right[of])),
      failed,
      row.marks.filter((mark) => mark !== "none").map((mark) => el(`span.${mark}`, {}, MARKED[mark])),
      found && el("span.found", {}, "found in: ", marked(found, words)),
    ),
    measure("kept", `${row.kept}/${row.queries}`, row.kept / row.queries),
    measure("reward", signed(row.reward), row.reward),
  );
}

/** @param {string} policy @param {boolean | null | undefined} right */
function answer(policy, right) {
  return typeof right === "boolean" && el(right ? "span" : "span.flag", {}, `${right ? "✓" : "✕"} ${policy}`);
}

/** A sub-question, query or title with a word that question, answer and id do not have. @param {Row} row @param {string[]} words */
function elsewhere(row, words) {
  const own = `${row.id}\n${row.question}\n${row.answer}`.toLowerCase();
  const rest = words.filter((word) => !own.includes(word));
  return (
    rest.length > 0 && row.texts?.split("\n").find((text) => rest.some((word) => text.toLowerCase().includes(word)))
  );
}

/** What the numbers of a row mean, and what they are divided by. */
function explained() {
  return el(
    "details.explained",
    {},
    el("summary", {}, "What the numbers mean"),
    el(
      "dl",
      {},
      el("dt", {}, "kept"),
      el("dd", {}, "Queries that the vote keeps, of all that are written for the hops."),
      el("dt", {}, "reward"),
      el(
        "dd",
        {},
        "The sum of G − P over the rounds. G, the information gain, is divided by the number of gold paragraphs: " +
          "all G of a trajectory sum to 1 at most, however many hops it has. P, the redundancy, is divided by the " +
          "number of documents of its round: it is 1 at most in each round. The bar ends at 1.",
      ),
    ),
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
