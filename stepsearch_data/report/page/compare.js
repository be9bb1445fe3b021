// Two stores compared: what differs, the trajectories that were lost, gained or changed, and both versions of one.

import { pages, step } from "./browse.js";
import { question, searched } from "./data.js";
import { counted, counting, el, marked, number, say, signed, spoken, table } from "./dom.js";
import { asFile, takeAway } from "./files.js";
import { searchField } from "./filters.js";
import { address, changesAt, go } from "./place.js";
import { DETAILS } from "./rejects.js";
import { timeline } from "./rounds.js";
import { aligned, beside } from "./trajectory.js";

/** @import { Source } from "./data.js" */
/** @import { Child } from "./dom.js" */
/** @import { View } from "./place.js" */
/** @import { Change, Comparison, Facts, Record, RecordRound } from "./shapes.js" */

const CHANGES = 100; // on a page
/** @type {{ [Kind in Change["kind"]]: { name: string, sign: string, note: string } }} */
const KINDS_OF_CHANGE = {
  lost: { name: "Lost", sign: "−", note: "fit for training in A only" },
  gained: { name: "Gained", sign: "+", note: "fit for training in B only" },
  changed: { name: "Changed", sign: "≠", note: "fit for training in both, but not the same" },
};
/** What of a round can differ: its elements, and what each of them says. @type {[string, (round: RecordRound) => string[]][]} */
const DIFFERING = [
  ["h3 span", (round) => [`${round.sub_question}\n${round.sub_answer}`]],
  ["p.query", (round) => [round.query]],
  ["td.query", (round) => round.queries.map(({ query, verdict }) => `${verdict}\n${query}`)],
  [".documents > li", (round) => round.documents.map(({ rank, title, text }) => `${rank}\n${title}\n${text}`)],
];

/** @param {Source} source @returns {Promise<Comparison>} */
async function compared(source) {
  const told = await source.comparison();
  if (told) return told;
  throw new Error("Nothing is compared here: `stepsearch-data report --compare STORE` makes a page that compares.");
}

/** What differs between the stores. @param {Source} source @returns {Promise<View>} */
export async function comparison(source) {
  const told = await compared(source);
  const title = `${told.a} → ${told.b}`;
  /** @param {Facts} facts @param {number} at */
  const part = (facts, at) =>
    el(
      "section",
      { "aria-labelledby": `compared-${at}` },
      el("h2", { id: `compared-${at}` }, facts.title),
      facts.rows.length ? table(facts) : el("p.quiet", {}, "None."),
    );
  const [settings, ...counts] = told.tables;
  const node = el(
    "article",
    {},
    el("h1", { tabindex: "-1" }, title),
    el("p.quiet", {}, "From store A, ", el("code", {}, told.a), ", to store B, ", el("code", {}, told.b), "."),
    el("dl.tiles", {}, tiles(told)),
    part(settings, 0),
    el(
      "section",
      { "aria-labelledby": "reasons" },
      el("h2", { id: "reasons" }, "Trajectories by reason"),
      told.changes.length ? kinds(told) : el("p.quiet", {}, "All are the same."),
    ),
    counts.map((facts, at) => part(facts, at + 1)),
  );
  return { title, node };
}

/** @param {Comparison} told */
function tiles({ fit, kept_share, changes }) {
  /** @type {[string, Child][]} */
  const shown = [
    ["Fit for training, A → B", fit.map((each) => number(each)).join(" → ")],
    ["Queries kept, A → B", `${kept_share.map((share) => (100 * share).toFixed(1)).join(" → ")}\u00a0%`],
  ];
  for (const [kind, { name, note }] of Object.entries(KINDS_OF_CHANGE)) {
    const count = changes.filter((change) => change.kind === kind).length;
    shown.push([`${name}: ${note}`, countedChanges(count, { kind })]);
  }
  return shown.map(([title, value]) => el("div", {}, el("dt", {}, title), el("dd", {}, value)));
}

/** A count of changes. @param {number} count @param {{ [name: string]: string }} asked */
function countedChanges(count, asked) {
  return counting(number(count), count ? changesAt(new URLSearchParams(asked)) : null);
}

/** Of each kind the reasons, most frequent first, without the names and numbers in which they differ. @param {Comparison} told */
function kinds({ changes }) {
  return Object.entries(KINDS_OF_CHANGE).map(([kind, { name, note }]) => {
    /** @type {Map<string, number>} */
    const counts = new Map();
    for (const { reasons } of changes.filter((change) => change.kind === kind))
      for (const reason of new Set(reasons.map(general))) counts.set(reason, (counts.get(reason) ?? 0) + 1);
    const sorted = [...counts].sort(([, a], [, b]) => b - a);
    if (!sorted.length) return null;
    const rows = sorted.map(([reason, count]) =>
      el("li", {}, el("span.count", {}, countedChanges(count, { kind, reason })), el("span", {}, reason)),
    );
    return [el("h3", {}, name, el("span.quiet", {}, ` ${note}`)), el("ul.reasons", {}, rows)];
  });
}

/** @param {string} reason */
function general(reason) {
  return spoken(reason.replace(DETAILS, "…"));
}

/**
 * The list of changes that `params` ask for.
 * @param {Source} source
 * @param {URLSearchParams} params
 * @param {(params: URLSearchParams) => void} change
 * @returns {Promise<View>}
 */
export async function changes(source, params, change) {
  const told = await compared(source);
  const results = el("div", { id: "results" });
  let shown = params;
  const files = {
    formats: ["csv", "jsonl"],
    /** @param {string} format @param {URLSearchParams} asked */
    file: (format, asked) => asFile(told.changes.filter(asks(asked)), format),
  };
  /** @param {URLSearchParams} asked */
  const update = async (asked) => {
    shown = asked;
    const wanted = told.changes.filter(asks(asked));
    const offset = Math.max(0, Number(asked.get("offset")) || 0);
    const total = wanted.length ? counted(wanted.length, "trajectory", "trajectories") : "Nothing found";
    results.replaceChildren(
      el("p.total", {}, total),
      el(
        "ol.rows",
        { start: offset + 1 },
        wanted.slice(offset, offset + CHANGES).map((each) => changeRow(each, asked)),
      ),
      pages(asked, offset, wanted.length, CHANGES, changesAt) ?? "",
    );
    say(total);
  };
  await update(params);
  /** @type {View} */
  const view = {
    title: "Trajectories that differ",
    node: el(
      "article",
      {},
      el("h1", { tabindex: "-1" }, "Trajectories that differ"),
      el("p.quiet", {}, "From store A, ", el("code", {}, told.a), ", to store B, ", el("code", {}, told.b), "."),
      changesForm(told, params, change),
      takeAway(files, () => shown),
      results,
    ),
    update,
    keys: { j: () => step(results, 1, view), k: () => step(results, -1, view) },
    escape: () => go("#/c"),
  };
  return view;
}

/** Whether a change is asked for. @param {URLSearchParams} params @returns {(change: Change) => boolean} */
function asks(params) {
  const [kind, reason, words] = [params.get("kind"), params.get("reason"), searched(params)];
  return (change) =>
    (!kind || change.kind === kind) &&
    (!reason || change.reasons.some((each) => general(each) === reason)) &&
    words.every((word) => `${change.id} ${change.question} ${change.reasons}`.toLowerCase().includes(word));
}

/** @param {Change} change @param {URLSearchParams} params */
function changeRow(change, params) {
  const { name, sign } = KINDS_OF_CHANGE[change.kind];
  const words = searched(params);
  return el(
    "li.row",
    {},
    el("a", { href: changesAt(question(params), change.id), "data-id": change.id }, marked(change.question, words)),
    el("p.why", {}, `${sign} ${name}: `, marked(change.reasons.map(spoken).join(", "), words)),
    el(
      "p.facts",
      {},
      el("span", {}, change.source),
      el("span", {}, counted(change.hops, "hop")),
      el("code", {}, marked(change.id, words)),
    ),
  );
}

/** @param {Comparison} told @param {URLSearchParams} params @param {(params: URLSearchParams) => void} change */
function changesForm(told, params, change) {
  /** @param {string} name @param {string[]} values */
  const options = (name, values, text = spoken) =>
    ["", ...values].map((value) =>
      el("option", { value, selected: value === (params.get(name) ?? "") }, value ? text(value) : "any"),
    );
  const reasons = [...new Set(told.changes.flatMap((each) => each.reasons.map(general)))].sort();
  const form = /** @type {HTMLFormElement} */ (
    el(
      "form.filters",
      { role: "search", "aria-label": "Changes", submit: (event) => event.preventDefault() },
      searchField({ value: params.get("text") ?? "" }),
      el(
        "div.fields",
        {},
        el(
          "label",
          {},
          el("span", {}, "Change"),
          el("select", { name: "kind" }, options("kind", Object.keys(KINDS_OF_CHANGE))),
        ),
        el("label", {}, el("span", {}, "Reason"), el("select", { name: "reason" }, options("reason", reasons))),
      ),
    )
  );
  form.addEventListener("input", () => {
    const chosen = [...new FormData(form)].map(([name, value]) => [name, String(value).trim()]);
    change(new URLSearchParams(chosen.filter(([, value]) => value)));
  });
  return form;
}

/**
 * One change: the trajectory as A has it beside that of B, rounds in rows.
 * @param {Source} source
 * @param {URLSearchParams} params
 * @param {string} id
 * @returns {Promise<View>}
 */
export async function difference(source, params, id) {
  const [told, theirs, ours] = await Promise.all([compared(source), source.other(id), source.record(id)]);
  const back = changesAt(params);
  const wanted = told.changes.filter(asks(params));
  const at = wanted.findIndex((change) => change.id === id);
  const change = wanted[at] ?? told.changes.find((each) => each.id === id);
  if (!change) throw new Error(`The stores do not differ in a trajectory with the id ${id}.`);
  /** @param {number} place */
  const to = (place) => (at >= 0 && wanted[place] ? changesAt(params, wanted[place].id) : null);
  const { name, sign, note } = KINDS_OF_CHANGE[change.kind];
  const sides = [version("A", told.a, theirs), version("B", told.b, ours)];
  if (theirs && ours) {
    tell(sides[0], theirs, ours);
    tell(sides[1], ours, theirs);
  }
  const node = el(
    "article.trajectory",
    {},
    beside(back, at, wanted.length, to(at - 1), to(at + 1)),
    el("h1", { tabindex: "-1" }, change.question),
    el("p.why", {}, `${sign} ${name}, ${note}: ${change.reasons.map(spoken).join(", ")}`),
    el(
      "p.quiet",
      {},
      el("code", {}, id),
      ours && [" · ", el("a", { href: address(new URLSearchParams(), id) }, "as B's report shows it")],
    ),
    el(
      "section",
      { "aria-labelledby": "line" },
      el("h2", { id: "line" }, "Round by round"),
      theirs && ours && el("p.quiet", {}, "≠ marks what the other store does not have in that round."),
      aligned(sides),
    ),
  );
  /** @param {string} rel */
  const follow = (rel) => {
    const there = node.querySelector(`.around a[rel="${rel}"]`);
    if (there instanceof HTMLElement) there.click();
  };
  return {
    title: change.question,
    node,
    keys: { n: () => follow("next"), p: () => follow("prev") },
    escape: () => go(back),
  };
}

/** A store's version of a trajectory. @param {string} letter @param {string} store @param {Record | null} record */
function version(letter, store, record) {
  const gained = record?.rounds.reduce((sum, { reward }) => sum + reward, 0) ?? 0;
  const about = record && [
    record.passed ? "✓ passed" : "✕ failed",
    record.split,
    !record.complete && "not complete",
    `answer ${record.answer}`,
    `G − P ${signed(gained)}`,
  ];
  return el(
    "div",
    {},
    el("h3.side", {}, `${letter} · ${store}`, about && el("span", {}, about.filter(Boolean).join(" · "))),
    record ? timeline(record, record.gold.length) : el("p.quiet", {}, "This store has no trajectory of the question."),
  );
}

/** Mark in a version what the other one does not have in the same round. @param {HTMLElement} side @param {Record} mine @param {Record} other */
function tell(side, mine, other) {
  const rounds = [...side.querySelectorAll(".line > li")].filter((each) => each.querySelector("h3"));
  for (const [at, node] of rounds.entries())
    for (const [selector, said] of DIFFERING) {
      const [here, there] = [said(mine.rounds[at]), other.rounds[at] ? said(other.rounds[at]) : []];
      for (const [n, element] of node.querySelectorAll(selector).entries())
        if (here[n] !== undefined && !there.includes(here[n])) {
          element.classList.add("differs");
          element.prepend(el("span.only", { title: "not so in the other store" }, "≠ "));
        }
    }
}
