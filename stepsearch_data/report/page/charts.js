// Charts: Vega-Lite draws them, here they get the page's colours and stand above the same numbers as a table.

import { el, table } from "./dom.js";
import { go } from "./place.js";

/** @import { Chart } from "./shapes.js" */
/** @typedef {{ finalize: () => void }} Drawn */

/** Vega's settings. Colours are the page's variables, so that charts follow the theme, on paper too. */
function chartSettings(leads = false) {
  const colours = [1, 2, 3, 4, 5, 6].map((n) => `var(--c${n})`);
  const text = {
    labelColor: "var(--soft)",
    titleColor: "var(--soft)",
    labelFontSize: 11,
    titleFontSize: 11,
    titleFontWeight: 500,
  };
  const cursor = leads ? "pointer" : "default";
  const lines = { gridColor: "var(--line)", domainColor: "var(--line)", tickColor: "var(--line)" };
  return {
    background: "transparent",
    font: "system-ui, sans-serif",
    padding: 4,
    view: { stroke: null, continuousHeight: 200, discreteHeight: 200 },
    axis: { ...text, ...lines, labelLimit: 200, labelOverlap: true, labelSeparation: 6 },
    axisQuantitative: { tickCount: 5, domain: false, ticks: false },
    axisDiscrete: { ticks: false },
    legend: { ...text, orient: "top", symbolType: "circle" },
    header: text,
    title: { color: "var(--ink)" },
    mark: { color: "var(--accent)", tooltip: true },
    rule: { color: "var(--soft)" },
    text: { color: "var(--ink)", fontSize: 11 },
    bar: { cornerRadiusEnd: 2, cursor },
    rect: { cursor },
    range: { category: colours, ordinal: colours },
  };
}

/**
 * A figure: title, note, place of the chart, and its table, which is all of it for those who do not see the chart,
 * and of a report that was made without the extra `charts`.
 * @param {Chart} chart
 */
export function figure(chart) {
  const draws = "vegaEmbed" in window;
  const place = draws && el("div.chart", { "aria-hidden": "true", "data-chart": chart.id });
  return el(
    "figure",
    {},
    el("figcaption", {}, el("h3", {}, chart.title), el("p.quiet", {}, chart.note)),
    place,
    el("details", { open: !draws }, el("summary", {}, "Numbers"), table(chart)),
  );
}

/**
 * Draw charts into their places, one a frame so that the page can be used meanwhile. Returns how to end them.
 * @param {HTMLElement} node
 * @param {Chart[]} charts
 */
export function drawCharts(node, charts) {
  let ended = false;
  /** @type {Drawn[]} */
  const views = [];
  const draw = async () => {
    for (const chart of charts) {
      await new Promise((resolve) => setTimeout(resolve));
      if (ended) return;
      const place = node.querySelector(`[data-chart="${CSS.escape(chart.id)}"]`);
      if (place) await drawChart(place, chart, views);
    }
  };
  void draw();
  return () => {
    ended = true;
    for (const view of views) view.finalize();
  };
}

/**
 * The list of what a mark counts: that of the row whose values the mark has.
 * @param {Chart} chart
 * @param {{ [column: string]: unknown }} datum
 */
function listOf({ columns, rows, links }, datum) {
  const known = columns.flatMap((name, at) => (name in datum ? [[at, datum[name]]] : []));
  if (!known.length) return null; // a mark of an axis or a legend
  const row = rows.findIndex((row) => known.every(([at, value]) => row[/** @type {number} */ (at)] === value));
  return Object.values(links[row] ?? {})[0];
}

/** @param {Element} place @param {Chart} chart @param {Drawn[]} views */
async function drawChart(place, chart, views) {
  const options = {
    ast: true, // expressions are interpreted: the page's policy forbids eval
    actions: false,
    renderer: "svg",
    defaultStyle: false,
    tooltip: { disableDefaultStyle: true },
    config: chartSettings(chart.links.length > 0),
  };
  try {
    const drawn = await /** @type {any} */ (window).vegaEmbed(place, chart.spec, options);
    views.push(drawn);
    drawn.view.addEventListener("click", (/** @type {any} */ _, /** @type {any} */ item) => {
      const there = item?.datum && listOf(chart, item.datum);
      if (there) go(there);
    });
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    place.replaceChildren(el("p.problem", {}, `This chart could not be drawn: ${why}`));
  }
}
