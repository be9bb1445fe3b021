// The time line of a trajectory: its segments by rounds, and beside each search what the store knows of it.

import { bar, counted, el, folded, link, marked, number, signed, spoken } from "./dom.js";

/** @import { EngineVote, Query, RecordDocument, RecordRound, Segment } from "./shapes.js" */

const KINDS = {
  think: "Think",
  search: "Search",
  information: "Information",
  observation: "Observation",
  answer: "Answer",
  warning: "Warning",
  text: "Text",
};
const VERDICTS = {
  chosen: "★ chosen",
  kept: "✓ kept",
  rejected: "✕ rejected",
  waiting: "… waiting",
  "not voted": "– not voted",
};

/**
 * Segments in order, those of a round together: its thought, search, information and observation.
 * @param {{ segments: Segment[], rounds: RecordRound[] }} record
 * @param {number} golds paragraphs that an information gain is divided by
 */
export function timeline(record, golds) {
  return el(
    "ol.line",
    {},
    grouped(record.segments).map(({ round, segments }) => {
      const known = round === null ? null : record.rounds[round];
      return el(
        "li",
        {},
        known && el("h3", {}, `Round ${known.round}`, known.sub_question && el("span", {}, known.sub_question)),
        known && known.role !== "gold" && el("p.role", {}, `Its role here: ${spoken(known.role)}`),
        segments.map((segment) => part(segment, known, golds)),
      );
    }),
  );
}

/**
 * A thought begins a group; a search belongs to the thought before it and brings the round, an answer likewise.
 * @param {Segment[]} all
 */
function grouped(all) {
  /** @type {{ round: number | null, segments: Segment[] }[]} */
  const groups = [];
  for (const segment of all.filter(({ text }) => text.trim())) {
    const last = groups.at(-1);
    const begins = segment.kind === "think" || (["search", "answer"].includes(segment.kind) && last?.round !== null);
    if (!last || begins) groups.push({ round: segment.round, segments: [segment] });
    else {
      last.round ??= segment.round;
      last.segments.push(segment);
    }
  }
  return groups;
}

/** @param {Segment} segment @param {RecordRound | null} round @param {number} golds */
function part({ kind, text }, round, golds) {
  const body =
    kind === "search"
      ? search(text, round, golds)
      : kind === "information"
        ? information(text, round)
        : folded(text.trim(), 600);
  return el(`div.part.${kind}`, {}, el("p.kind", {}, KINDS[kind]), el("div.body", {}, body));
}

/** @param {string} text @param {RecordRound | null} round @param {number} golds */
function search(text, round, golds) {
  if (!round) return el("p.query", {}, text.trim());
  return [el("p.query", {}, text.trim()), scores(round, golds), engineVotes(round)];
}

/** What a reward is divided by. @param {number} count @param {string} one */
function by(count, one) {
  return count ? `÷ ${counted(count, one)}` : "";
}

/** @param {RecordRound} round @param {number} golds */
function scores(round, golds) {
  /** @type {[string, string, number, string, string][]} */
  const rewards = [
    ["Information gain", "G", round.gain, "", by(golds, "gold paragraph")],
    ["Redundancy", "P", round.redundancy, "striped", by(round.documents.length, "document")],
    ["Step reward", "G − P", round.reward, "strong", ""],
  ];
  return el(
    "dl.scores",
    {},
    rewards.map(([name, sign, value, look, divided]) =>
      el(
        "div",
        {},
        el("dt", {}, name, " ", el("span.sign", {}, sign), divided && el("span.divided", {}, ` ${divided}`)),
        el("dd", {}, signed(value), bar(Math.abs(value), value < 0 ? "minus" : look)),
      ),
    ),
  );
}

/** All queries of the hop with what each engine said of them. @param {RecordRound} round */
function engineVotes(round) {
  if (!round.queries.length) return null;
  const engines = [...new Set(round.queries.flatMap((query) => query.engine_votes.map((each) => each.engine)))];
  const kept = round.queries.filter(({ verdict }) => verdict === "kept" || (verdict === "chosen" && round.kept)).length;
  const name = `Queries of round ${round.round}`;
  return el(
    "details.queries",
    { open: true },
    el("summary", {}, `${counted(round.queries.length, "query", "queries")} written, ${kept} kept`),
    el(
      "div.scroll",
      { tabindex: "0", role: "group", "aria-label": name },
      el(
        "table",
        {},
        el("caption.unseen", {}, name),
        el(
          "thead",
          {},
          el(
            "tr",
            {},
            ["Query", "Verdict", "Written from", ...engines].map((head) => el("th", { scope: "col" }, head)),
          ),
        ),
        el(
          "tbody",
          {},
          round.queries.map((query) => queryRow(query, round.kept, engines)),
        ),
      ),
    ),
  );
}

/** @param {Query} query @param {boolean} kept @param {string[]} engines */
function queryRow(query, kept, engines) {
  const verdict = query.verdict === "chosen" && !kept ? "★ chosen, not kept" : VERDICTS[query.verdict];
  const said = new Map(query.engine_votes.map((each) => [each.engine, each]));
  return el(
    `tr.${query.verdict.replace(" ", "-")}`,
    {},
    el("td.query", {}, query.query),
    el("td.verdict", {}, verdict),
    el("td", {}, spoken(query.method)),
    engines.map((engine) => el("td", {}, vote(said.get(engine)))),
  );
}

/** @param {EngineVote | undefined} said */
function vote(said) {
  if (!said) return "–";
  if (!said.answered) return "no answer";
  const rank = said.gold_rank === null ? "no gold" : `gold at ${said.gold_rank}`;
  return `${said.valid ? "✓" : "✕"} ${rank}`;
}

/** @param {string} text @param {RecordRound | null} round */
function information(text, round) {
  if (!round?.documents.length) return folded(text.trim(), 600);
  const found = round.sub_answer ? [round.sub_answer] : [];
  return el(
    "ol.documents",
    {},
    round.documents.map((document) => paper(document, found)),
  );
}

/** @param {RecordDocument} found @param {string[]} words */
function paper(found, words) {
  const title = [el("span.rank", {}, `${found.rank}`), " ", link(found.url, found.title || "without a title")];
  return el(
    found.gold ? "li.gold" : "li",
    {},
    el(
      "p.title",
      {},
      title,
      found.gold && el("span.mark", {}, "★ gold"),
      found.score !== null && el("span.quiet", {}, `${found.engine} ${number(found.score, 2)}`),
    ),
    clamped(found.text, found.gold ? words : []),
  );
}

/** A paragraph; a long one is cut to a few lines until asked for. @param {string} text @param {string[]} words */
export function clamped(text, words = []) {
  const body = marked(text, words);
  if (text.length <= 320) return el("p", {}, body);
  return el("details.clamped", {}, el("summary", {}, el("span", {}, body)));
}
