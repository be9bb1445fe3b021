// The rows that stages rejected: where each comes from, and why.

import { pages } from "./browse.js";
import { searched } from "./data.js";
import { counted, el, table } from "./dom.js";
import { rejectsAt } from "./place.js";

/** @import { Source } from "./data.js" */
/** @import { View } from "./place.js" */
/** @import { Reject } from "./shapes.js" */

const ROWS = 200; // on a page
export const DETAILS = /'[^']*'|"[^"]*"|\d+/g; // names and numbers, in which reasons of the overview do not differ

/** @param {Source} source @param {URLSearchParams} params @param {(params: URLSearchParams) => void} change */
export async function rejects(source, params, change) {
  const { total, rows } = await source.rejects();
  const results = el("div", { id: "results" });
  /** @param {URLSearchParams} asked */
  const update = async (asked) => {
    const offset = Math.max(0, Number(asked.get("offset")) || 0);
    const found = rows.filter(fits(asked));
    const shown = found.slice(offset, offset + ROWS);
    results.replaceChildren(
      el("p.total", {}, found.length ? counted(found.length, "row") : "Nothing was rejected"),
      table({
        title: "Rejected rows",
        columns: ["stage", "source", "position", "question", "reason"],
        rows: shown.map(({ stage, source, position, id, reason }) => [stage, source, position, id, reason]),
        links: [],
      }),
      pages(asked, offset, found.length, ROWS, rejectsAt) ?? "",
    );
  };
  await update(params);
  const most = total > rows.length && el("p.quiet", {}, `Only the first ${rows.length} of ${total} are listed here.`);
  const node = el(
    "article",
    {},
    el("h1", { tabindex: "-1" }, "Rejected rows"),
    most,
    form(rows, params, change),
    results,
  );
  /** @type {View} */
  return { title: "Rejected rows", node, update };
}

/** @param {Reject[]} rows @param {URLSearchParams} params @param {(params: URLSearchParams) => void} change */
function form(rows, params, change) {
  const text = el("input", {
    type: "search",
    value: params.get("text") ?? "",
    "aria-label": "Search in id and reason",
  });
  const stages = ["", ...new Set(rows.map(({ stage }) => stage))];
  const options = stages.map((stage) =>
    el("option", { value: stage, selected: stage === (params.get("stage") ?? "") }, stage || "any"),
  );
  const stage = el("select", {}, options);
  const changed = () => {
    const values = { stage: value(stage), text: value(text) };
    change(new URLSearchParams(Object.entries(values).filter(([, value]) => value)));
  };
  text.addEventListener("input", changed);
  stage.addEventListener("input", changed);
  return el(
    "form.filters",
    { role: "search", submit: (event) => event.preventDefault() },
    el(
      "div.fields",
      {},
      el("label", {}, el("span", {}, "Stage"), stage),
      el("label.wide", {}, el("span", {}, "Search"), text),
    ),
  );
}

/** @param {HTMLElement} field */
function value(field) {
  return field instanceof HTMLInputElement || field instanceof HTMLSelectElement ? field.value.trim() : "";
}

/** Whether a row is asked for. @param {URLSearchParams} params @returns {(row: Reject) => boolean} */
function fits(params) {
  const [stage, reason, words] = [params.get("stage"), params.get("reason"), searched(params)];
  return (row) =>
    (!stage || row.stage === stage) &&
    (!reason || row.reason.replace(DETAILS, "…") === reason) &&
    words.every((word) => `${row.id ?? ""} ${row.reason}`.toLowerCase().includes(word));
}
