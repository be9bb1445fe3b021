// One trajectory: what was thought, searched, read, found out and answered, with all that the store knows of each round.

const KINDS = { think: "Think", search: "Search", information: "Information", observation: "Observation", answer: "Answer", text: "Text" };
const VERDICTS = { chosen: "★ chosen", kept: "✓ kept", rejected: "✕ rejected", waiting: "… waiting", "not voted": "– not voted" };

async function trajectory(source, params, id) {
  const [record, place] = await Promise.all([source.record(id), source.around(id, params)]);
  const back = address("t", pageOf(params, place.at));
  if (!record) return missing(id, back);
  const to = (other, step) => other !== null && address("t", at(params, place.at + step), other);
  const node = el(
    "article.trajectory",
    {},
    el("nav.around", { "aria-label": "Results" }, el("a", { href: back }, "← Results"), neighbour(to(place.before, -1), "Previous", "prev"),
      place.at >= 0 && el("span.quiet", {}, `${number(place.at + 1)} of ${number(place.total)}`), neighbour(to(place.after, 1), "Next", "next")),
    el("h1", { tabindex: "-1" }, record.question),
    header(record),
    record.flags.length > 0 && flagged(record),
    el("section", { "aria-labelledby": "line" }, el("h2", { id: "line" }, "Step by step"), timeline(record)),
    supporting(record),
    el("details.raw", {}, el("summary", {}, "Text of the rollout"), el("pre", {}, raw(record.segments))),
  );
  const follow = (name) => node.querySelector(`.around a[rel="${name}"]`)?.click();
  return { title: record.question, node, keys: { n: () => follow("next"), p: () => follow("prev") }, escape: () => go(back) };
}

function missing(id, back) {
  const node = el("article", {}, el("h1", { tabindex: "-1" }, "No such trajectory"),
    el("p", {}, "There is none with the id ", el("code", {}, id), "."), el("p", {}, el("a", { href: back }, "← Results")));
  return { title: "No such trajectory", node, escape: () => go(back) };
}

function neighbour(href, text, rel) {
  return href ? el("a", { href, rel }, text) : el("span.quiet", {}, text);
}

function at(params, position) {
  const there = new URLSearchParams(question(params));
  there.set("at", position);
  return there;
}

/** The page of results that a trajectory stands on. */
function pageOf(params, position) {
  const there = new URLSearchParams(question(params));
  if (position >= PAGE) there.set("offset", Math.floor(position / PAGE) * PAGE);
  return there;
}

function header(record) {
  const total = (name) => record.rounds.reduce((sum, round) => sum + round[name], 0);
  const gates = record.passed === null ? "not run" : record.passed ? "✓ passed" : "✕ failed";
  const told = [
    ["Answer", [el("strong", {}, record.answer), record.aliases.length > 0 && el("span.quiet", {}, ` also ${record.aliases.join(", ")}`)]],
    ["Source", [record.source, record.type && ` · ${record.type}`, ` · ${counted(record.hops, "hop")}`]],
    ["Gates", [gates, record.split && ` · ${record.split}`]],
    ["Difficulty", record.difficulty || "–"],
    ["Complete", record.complete ? "yes" : "no: a hop has no kept query"],
    !record.answerable && ["Answerable", "no"],
    ["Reward", `G − P ${signed(total("reward"))} · answer ${signed(record.answer_reward)} · keys ${signed(record.key_reward)}`],
    ["Id", el("code", {}, record.id)],
  ];
  return el("dl.facts", {}, told.filter(Boolean).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

function flagged(record) {
  return el("section.flags", { "aria-labelledby": "flags" }, el("h2", { id: "flags" }, "What the gates say"),
    el("ul", {}, record.flags.map((flag, n) => el("li", {}, el("strong", {}, `⚑ ${spoken(flag)}`), " ", record.reasons[n] ?? ""))));
}

/** Segments in order, those of a round together: its thought, search, information and observation. */
function timeline(record) {
  return el("ol.line", {}, grouped(record.segments).map(({ round, segments }) => {
    const known = round === null ? null : record.rounds[round];
    return el(
      "li",
      {},
      known && el("h3", {}, `Round ${known.round}`, known.sub_question && el("span", {}, known.sub_question)),
      known && known.role !== "gold" && el("p.role", {}, `Its role here: ${spoken(known.role)}`),
      segments.map((segment) => part(segment, known)),
    );
  }));
}

/** A thought begins a group; a search belongs to the thought before it and brings the round, an answer likewise. */
function grouped(segments) {
  const groups = [];
  for (const segment of segments.filter(({ text }) => text.trim())) {
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

function part(segment, round) {
  const { kind, text } = segment;
  const body = { search: () => search(text, round), information: () => information(text, round) }[kind];
  return el(`div.part.${kind}`, {}, el("p.kind", {}, KINDS[kind]), el("div.body", {}, body ? body() : folded(text.trim(), 600)));
}

function search(text, round) {
  if (!round) return el("p.query", {}, text.trim());
  return [el("p.query", {}, text.trim()), scores(round), ballots(round)];
}

function scores(round) {
  const shown = [["Information gain", "G", round.gain, ""], ["Redundancy", "P", round.redundancy, "striped"], ["Step reward", "G − P", round.reward, "strong"]];
  return el("dl.scores", {}, shown.map(([name, sign, value, look]) =>
    el("div", {}, el("dt", {}, name, " ", el("span.sign", {}, sign)), el("dd", {}, signed(value), bar(Math.abs(value), value < 0 ? "minus" : look)))));
}

/** All queries of the hop with what each engine said of them. */
function ballots(round) {
  if (!round.queries.length) return null;
  const engines = [...new Set(round.queries.flatMap((query) => query.ballots.map((ballot) => ballot.engine)))];
  const kept = round.queries.filter(({ verdict }) => verdict === "kept" || (verdict === "chosen" && round.kept)).length;
  const name = `Queries of round ${round.round}`;
  return el(
    "details.queries",
    { open: true },
    el("summary", {}, `${counted(round.queries.length, "query", "queries")} written, ${kept} kept`),
    el("div.scroll", { tabindex: "0", role: "group", "aria-label": name },
      el("table", {}, el("caption.unseen", {}, name),
        el("thead", {}, el("tr", {}, ["Query", "Verdict", "Written from", ...engines].map((head) => el("th", { scope: "col" }, head)))),
        el("tbody", {}, round.queries.map((query) => queryRow(query, round.kept, engines))))),
  );
}

function queryRow(query, kept, engines) {
  const verdict = query.verdict === "chosen" && !kept ? "★ chosen, not kept" : VERDICTS[query.verdict];
  const said = new Map(query.ballots.map((ballot) => [ballot.engine, ballot]));
  return el(`tr.${query.verdict.replace(" ", "-")}`, {}, el("td.query", {}, query.query), el("td.verdict", {}, verdict),
    el("td", {}, spoken(query.form)), engines.map((engine) => el("td", {}, vote(said.get(engine)))));
}

function vote(ballot) {
  if (!ballot) return "–";
  if (!ballot.answered) return "no answer";
  const rank = ballot.gold_rank === null ? "no gold" : `gold at ${ballot.gold_rank}`;
  return `${ballot.valid ? "✓" : "✕"} ${rank}`;
}

function information(text, round) {
  if (!round?.documents.length) return folded(text.trim(), 600);
  const found = round.sub_answer ? [round.sub_answer] : [];
  return el("ol.documents", {}, round.documents.map((document) => paper(document, found)));
}

function paper(found, words) {
  const title = [el("span.rank", {}, `${found.rank}`), " ", link(found.url, found.title || "without a title")];
  return el(
    found.gold ? "li.gold" : "li",
    {},
    el("p.title", {}, title, found.gold && el("span.mark", {}, "★ gold"), el("span.quiet", {}, `${found.engine} ${number(found.score, 2)}`)),
    clamped(found.text, found.gold ? words : []),
  );
}

/** A paragraph; a long one is cut to a few lines until asked for. */
function clamped(text, words = []) {
  const body = marked(text, words);
  if (text.length <= 320) return el("p", {}, body);
  return el("details.clamped", {}, el("summary", {}, el("span", {}, body)));
}

function supporting(record) {
  if (!record.gold.length) return null;
  return el("section", { "aria-labelledby": "gold" }, el("h2", { id: "gold" }, "Supporting paragraphs"),
    el("ul.documents", {}, record.gold.map(([title, text]) => el("li.gold", {}, el("p.title", {}, title, el("span.mark", {}, "★ gold")), clamped(text)))));
}

function raw(segments) {
  return segments.map(({ kind, text }) => (kind === "text" ? text.trim() : `<${kind}> ${text.trim()} </${kind}>`)).filter(Boolean).join("\n");
}
