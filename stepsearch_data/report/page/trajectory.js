// One trajectory: its question and answer, what the gates say, the time line, the paragraphs that support it.

import { PAGE } from "./browse.js";
import { question } from "./data.js";
import { counted, el, number, signed, spoken } from "./dom.js";
import { marking } from "./marks.js";
import { address, go } from "./place.js";
import { clamped, timeline } from "./rounds.js";

/** @import { Source } from "./data.js" */
/** @import { Child } from "./dom.js" */
/** @import { View } from "./place.js" */
/** @import { Record, Rollout, Segment } from "./shapes.js" */

/** @param {Source} source @param {URLSearchParams} params @param {string} id @returns {Promise<View>} */
export async function trajectory(source, params, id) {
  const [record, around] = await Promise.all([source.record(id), source.around(id, params)]);
  const back = address(pageOf(params, around.at));
  if (!record) return missing(id, back);
  /** @param {string | null} other @param {number} step */
  const to = (other, step) => (other === null ? null : address(at(params, around.at + step), other));
  const marks = marking(source, record);
  const node = el(
    "article.trajectory",
    {},
    beside(back, around.at, around.total, to(around.before, -1), to(around.after, 1)),
    el("h1", { tabindex: "-1" }, record.question),
    header(record),
    marks.node,
    record.flags.length > 0 && flagged(record),
    el("section", { "aria-labelledby": "line" }, el("h2", { id: "line" }, "Step by step"), sides(record)),
    supporting(record),
    el("details.raw", {}, el("summary", {}, "Text of the rollout"), el("pre", {}, raw(record.segments))),
  );
  /** @param {string} name */
  const follow = (name) => {
    const there = node.querySelector(`.around a[rel="${name}"]`);
    if (there instanceof HTMLElement) there.click();
  };
  return {
    title: record.question,
    node,
    keys: { n: () => follow("next"), p: () => follow("prev"), ...marks.keys },
    shown: marks.shown,
    left: marks.left,
    escape: () => go(back),
  };
}

/** @param {string} id @param {string} back @returns {View} */
function missing(id, back) {
  const node = el(
    "article",
    {},
    el("h1", { tabindex: "-1" }, "No such trajectory"),
    el("p", {}, "There is none with the id ", el("code", {}, id), "."),
    el("p", {}, el("a", { href: back }, "← Results")),
  );
  return { title: "No such trajectory", node, escape: () => go(back) };
}

/**
 * The way back to the results, and to those before and after it. `at` is its place among them, -1 for none.
 *
 * @param {string} back @param {number} at @param {number} total @param {string | null} before @param {string | null} after
 */
export function beside(back, at, total, before, after) {
  /** @param {string | null} href @param {string} text @param {string} rel */
  const neighbour = (href, text, rel) => (href ? el("a", { href, rel }, text) : el("span.quiet", {}, text));
  return el(
    "nav.around",
    { "aria-label": "Results" },
    el("a", { href: back }, "← Results"),
    neighbour(before, "Previous", "prev"),
    at >= 0 && el("span.quiet", {}, `${number(at + 1)} of ${number(total)}`),
    neighbour(after, "Next", "next"),
  );
}

/** @param {URLSearchParams} params @param {number} position */
function at(params, position) {
  const there = question(params);
  there.set("at", String(position));
  return there;
}

/** The page of results that a trajectory stands on. @param {URLSearchParams} params @param {number} position */
function pageOf(params, position) {
  const there = question(params);
  if (position >= PAGE) there.set("offset", String(Math.floor(position / PAGE) * PAGE));
  return there;
}

/** @param {Record} record */
function header(record) {
  const gained = record.rounds.reduce((sum, { reward }) => sum + reward, 0);
  const gates = record.passed === null ? "not run" : record.passed ? "✓ passed" : "✕ failed";
  /** @type {([string, Child] | false)[]} */
  const told = [
    [
      "Answer",
      [
        el("strong", {}, record.answer),
        record.aliases.length > 0 && el("span.quiet", {}, ` also ${record.aliases.join(", ")}`),
      ],
    ],
    ["Source", [record.source, record.type && ` · ${record.type}`, ` · ${counted(record.hops, "hop")}`]],
    ["Gates", [gates, record.split && ` · ${record.split}`]],
    ["Difficulty", record.difficulty || "–"],
    ["Complete", record.complete ? "yes" : "no: a hop has no kept query"],
    !record.answerable && ["Answerable", "no"],
    ["Reward", [`G − P ${signed(gained)}`, ...lost(record)].join(" · ")],
    ["Id", el("code", {}, record.id)],
  ];
  return el(
    "dl.facts",
    {},
    told.map((fact) => fact && el("div", {}, el("dt", {}, fact[0]), el("dd", {}, fact[1]))),
  );
}

/**
 * A gold trajectory's other rewards are 1 as it is built: they say something where they are less.
 * @param {Record} record
 */
function lost({ answer_reward, key_reward }) {
  return Object.entries({ answer: answer_reward, keys: key_reward })
    .filter(([, reward]) => reward < 1)
    .map(([name, reward]) => `${name} ${signed(reward)}`);
}

/** The gold trajectory, and beside it what policies did. @param {Record} record */
function sides(record) {
  const line = timeline(record, record.gold.length);
  if (!record.rollouts.length) return line;
  const gold = el("div", {}, el("h3.side", {}, "Gold trajectory"), line);
  return aligned([gold, ...record.rollouts.map(side)]);
}

/** Time lines side by side: the n-th rounds of all are in one row. @param {HTMLElement[]} columns */
export function aligned(columns) {
  const rows = Math.max(...columns.map((each) => each.querySelectorAll(".line > li").length));
  return el("div.sides", { style: `--rows: ${rows + 1}` }, columns); // the first row has the headings
}

/** @param {Rollout} rollout */
function side(rollout) {
  const gained = rollout.rounds.reduce((sum, { reward }) => sum + reward, 0);
  const told = [
    rollout.right ? "✓ right" : "✕ wrong",
    `F1 ${number(rollout.f1, 2)}`,
    counted(rollout.rounds.length, "search", "searches"),
    `G − P ${signed(gained)}`,
    `keys ${signed(rollout.key_reward)}`,
    !rollout.format_ok && "wrong format",
  ];
  return el(
    "div",
    {},
    el("h3.side", {}, rollout.policy, el("span", {}, told.filter(Boolean).join(" · "))),
    timeline(rollout, rollout.golds),
  );
}

/** @param {Record} record */
function flagged(record) {
  return el(
    "section.flags",
    { "aria-labelledby": "flags" },
    el("h2", { id: "flags" }, "What the gates say"),
    el(
      "ul",
      {},
      record.flags.map((flag, n) => el("li", {}, el("strong", {}, `⚑ ${spoken(flag)}`), " ", record.reasons[n] ?? "")),
    ),
  );
}

/** @param {Record} record */
function supporting(record) {
  if (!record.gold.length) return null;
  return el(
    "section",
    { "aria-labelledby": "gold" },
    el("h2", { id: "gold" }, "Supporting paragraphs"),
    el(
      "ul.documents",
      {},
      record.gold.map(([title, text]) =>
        el("li.gold", {}, el("p.title", {}, title, el("span.mark", {}, "★ gold")), clamped(text)),
      ),
    ),
  );
}

/** @param {Segment[]} segments */
function raw(segments) {
  return segments
    .map(({ kind, text }) => (kind === "text" ? text.trim() : `<${kind}> ${text.trim()} </${kind}>`))
    .filter(Boolean)
    .join("\n");
}
