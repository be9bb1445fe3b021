// The first screen: what is in the store, by source and hops, and whether it is fit for training.

import { bar, counting, el, number, table } from "./dom.js";

/** @import { Facts, Verdict } from "./shapes.js" */

/** The sentence on top. @param {Verdict} verdict */
export function sentence({ said }) {
  return (
    said.length > 0 &&
    el(
      "p.said",
      {},
      said.map(({ text, link }) => counting(text, link)),
    )
  );
}

/** @param {Verdict} verdict */
export function verdict({ table: bySource, parts }) {
  if (!bySource.rows.length) return null;
  return el(
    "section.verdict",
    { "aria-label": "What is in the store" },
    table(bySource),
    parts.length > 0 && el("dl.parts", {}, parts.map(distribution)),
  );
}

/** Counts with a bar of their share of all, or what is said instead of a count. @param {Facts} facts */
function distribution({ title, columns, rows, links }) {
  const all = rows.reduce((sum, [, value]) => sum + (typeof value === "number" ? value : 0), 0);
  const whole = title === "Split" || title === "Difficulty" ? all : 0; // a trajectory may fail several gates
  return el(
    "div",
    {},
    el("dt", {}, title),
    rows.map(([name, value], at) =>
      el(
        "dd",
        {},
        el("span", {}, String(name)),
        el(
          "span.count",
          {},
          typeof value === "number" ? counting(number(value), links[at]?.[columns[1]]) : String(value ?? "–"),
        ),
        whole > 0 && typeof value === "number" && bar(value / whole),
      ),
    ),
  );
}
