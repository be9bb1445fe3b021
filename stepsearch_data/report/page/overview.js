// The first page: numbers, the funnel, charts and tables.

import { drawCharts, figure } from "./charts.js";
import { bar, el, number, spoken, table } from "./dom.js";

/** @import { Source } from "./data.js" */
/** @import { View } from "./place.js" */
/** @import { Facts, Step } from "./shapes.js" */

/** @param {Source} source @returns {Promise<View>} */
export async function overview(source) {
  const about = await source.summary();
  const node = el(
    "article",
    {},
    el("h1", { tabindex: "-1" }, about.title),
    about.notes.length > 0 &&
      el(
        "ul.notes",
        { "aria-label": "Notes" },
        about.notes.map((note) => el("li", {}, note)),
      ),
    el("dl.tiles", {}, about.tiles.map(tile)),
    el(
      "section",
      { "aria-labelledby": "funnel" },
      el("h2", { id: "funnel" }, "From questions to trajectories"),
      funnel(about.funnel),
    ),
    about.charts.length > 0 &&
      el(
        "section",
        { "aria-labelledby": "charts" },
        el("h2", { id: "charts" }, "How it is spread"),
        el("div.figures", {}, about.charts.map(figure)),
      ),
    about.tables.map(facts),
    el("p.made", {}, `${about.made_with} · store `, el("code", {}, about.store)),
  );
  let end = () => {};
  const draw = () => {
    end = drawCharts(node, about.charts);
  };
  return { title: about.title, node, shown: draw, left: () => end() };
}

/** @param {Facts} facts */
function tile({ title, rows }) {
  const value = rows[0][0];
  return el(
    "div",
    {},
    el("dt", {}, title),
    el("dd", {}, typeof value === "number" ? number(value) : String(value ?? "–")),
  );
}

/** Steps with a bar on one scale, and below each the reasons for which rows did not go on. @param {Step[]} steps */
function funnel(steps) {
  const most = Math.max(1, ...steps.map((step) => step.count));
  return el(
    "ol.funnel",
    {},
    steps.map((step) =>
      el(
        "li",
        {},
        el(
          "div.step",
          {},
          el("p", {}, el("strong", {}, step.name), " ", el("span.quiet", {}, step.note)),
          counts(step, number(step.count)),
          bar(step.count / most),
        ),
        step.lost.length > 0 && el("ul.lost", { "aria-label": `Lost after ${step.name}` }, step.lost.map(loss)),
      ),
    ),
  );
}

/** A count, which leads to what it counts. @param {Step} step @param {string} text */
function counts({ link }, text) {
  return el("span.count", {}, link?.startsWith("#/") ? el("a", { href: link }, text) : text);
}

/** @param {Step} step */
function loss(step) {
  const { name, count, note } = step;
  return el(
    "li",
    {},
    counts(step, `−${number(count)}`),
    el("span", {}, spoken(name), note && note !== name && el("span.quiet", {}, ` ${note}`)),
  );
}

/** @param {Facts} told @param {number} at */
function facts(told, at) {
  return el("section", { "aria-labelledby": `facts-${at}` }, el("h2", { id: `facts-${at}` }, told.title), table(told));
}
