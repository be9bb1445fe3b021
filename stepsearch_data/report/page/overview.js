// The first page: the verdict, numbers, the funnel, charts and tables.

import { drawCharts, figure } from "./charts.js";
import { bar, counting, el, number, percent, spoken, table } from "./dom.js";
import { sentence, verdict } from "./verdict.js";

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
    sentence(about.verdict),
    about.notes.length > 0 &&
      el(
        "ul.notes",
        { "aria-label": "Notes" },
        about.notes.map((note) => el("li", {}, note)),
      ),
    el("dl.tiles", {}, about.tiles.map(tile)),
    verdict(about.verdict),
    steps("documents", "From documents to questions", about.documents),
    steps("funnel", "From questions to trajectories", about.funnel),
    about.checked.map(section),
    about.marked.map(section),
    about.compared.map(section),
    about.charts.length > 0 &&
      el(
        "section",
        { "aria-labelledby": "charts" },
        el("h2", { id: "charts" }, "How it is spread"),
        el("div.figures", {}, about.charts.map(figure)),
      ),
    about.tables.map(section),
    el("p.made", {}, `${about.made_with} · store `, el("code", {}, about.store)),
  );
  let end = () => {};
  const draw = () => {
    end = drawCharts(node, about.charts);
  };
  return { title: about.title, node, shown: draw, left: () => end() };
}

/** @param {Facts} facts */
function tile({ title, rows, links }) {
  const value = rows[0][0];
  const text = typeof value === "number" ? number(value) : String(value ?? "–");
  return el("div", {}, el("dt", {}, title), el("dd", {}, counting(text, links[0]?.[title])));
}

/**
 * Steps, each with a bar of its share of its unit, and below the reasons for which rows did not go on.
 * @param {string} id
 * @param {string} title
 * @param {Step[]} steps
 */
function steps(id, title, steps) {
  if (!steps.length) return null;
  const list = el(
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
          el("span.count", {}, counting(number(step.count), step.link)),
          el("span.share", {}, percent(step.count, step.whole)),
          bar(step.whole ? step.count / step.whole : 0),
        ),
        step.lost.length > 0 && el("ul.lost", { "aria-label": `Lost after ${step.name}` }, step.lost.map(loss)),
      ),
    ),
  );
  return el("section", { "aria-labelledby": id }, el("h2", { id }, title), list);
}

/** @param {Step} step */
function loss({ name, count, note, link }) {
  return el(
    "li",
    {},
    el("span.count", {}, counting(`−${number(count)}`, link)),
    el("span", {}, spoken(name), note && note !== name && el("span.quiet", {}, ` ${note}`)),
  );
}

/** @param {Facts} told */
function section(told) {
  const id = told.title.replace(/\W+/g, "-");
  return el("section", { "aria-labelledby": id }, el("h2", { id }, told.title), table(told));
}
