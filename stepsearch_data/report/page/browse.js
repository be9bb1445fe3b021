// The list of trajectories: search, filters, pages. What is chosen stands in the page's address.

const PAGE = 50; // trajectories on a page
const ORDERS = [
  ["", "as in the store"],
  ["-reward", "reward, highest first"],
  ["reward", "reward, lowest first"],
  ["-gain", "information gain, highest first"],
  ["-redundancy", "redundancy, highest first"],
  ["share", "fewest queries kept"],
  ["-hops", "most hops"],
  ["question", "question, A to Z"],
];
const YES_NO = [
  ["true", "yes"],
  ["false", "no"],
];

async function browse(source, params) {
  const about = await source.summary();
  const results = el("div", { id: "results" });
  const node = el("article", {}, el("h1", { tabindex: "-1" }, "Trajectories"), filters(about.facets, params), results);
  const view = {
    title: "Trajectories",
    node,
    update: (changed) => fill(source, results, changed, view),
    keys: { j: () => step(results, 1, view), k: () => step(results, -1, view) },
  };
  results.addEventListener("keydown", (event) => {
    const way = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!way) return;
    event.preventDefault();
    step(results, way, view);
  });
  await view.update(params);
  return view;
}

/** The form. Every change of it becomes the page's address, and the address what is shown. */
function filters(facets, params) {
  const values = (name, say = spoken) =>
    facets[name].map((value) => [String(value), value === "" ? "none" : say(String(value))]);
  const form = el(
    "form.filters",
    { role: "search", "aria-label": "Trajectories", submit: (event) => event.preventDefault() },
    el(
      "label.wide",
      {},
      el("span", {}, "Search"),
      el("input", {
        id: "search",
        type: "search",
        name: "text",
        placeholder: "words of question, answer or id",
        autocomplete: "off",
        spellcheck: "false",
      }),
    ),
    el(
      "details.more",
      { open: matchMedia("(min-width: 48rem)").matches },
      el("summary", {}, "Filters and order"),
      el(
        "div.fields",
        {},
        choice("source", "Source", values("source")),
        choice("type", "Type", values("type")),
        choice(
          "hops",
          "Hops",
          values("hops", (value) => counted(Number(value), "hop")),
        ),
        choice("difficulty", "Difficulty", values("difficulty")),
        choice("passed", "Gates", [
          ["true", "passed"],
          ["false", "failed"],
        ]),
        choice("flags", "Failed gate", values("flags"), 1),
        choice("split", "Split", values("split")),
        choice("complete", "Complete", YES_NO),
        choice("answerable", "Answerable", YES_NO),
        range("share", "Share of queries kept", 0.05),
        range("reward", "Reward, G − P", 0.1),
        choice("sort", "Order", ORDERS, 1),
        el("button", { type: "reset" }, "Clear"),
      ),
    ),
  );
  for (const [name, value] of params) if (form.elements[name]) form.elements[name].value = value;
  let waiting;
  form.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => replaceList(chosen(form)), 80);
  });
  form.addEventListener("reset", () => setTimeout(() => replaceList(chosen(form))));
  return form;
}

/** A field to choose a value in; there is none where there is nothing to choose. "any" is no value. */
function choice(name, label, values, least = 2) {
  if (values.length < least) return null;
  const any = name === "sort" ? [] : [el("option", { value: "any" }, "any")];
  return el(
    "label",
    {},
    el("span", {}, label),
    el(
      "select",
      { name },
      any,
      values.map(([value, text]) => el("option", { value }, text)),
    ),
  );
}

function range(name, label, step) {
  const end = (which, text) =>
    el("input", {
      type: "number",
      name: `${name}_${which}`,
      step,
      placeholder: text,
      "aria-label": `${label}, ${text}`,
    });
  return el("fieldset", {}, el("legend", {}, label), end("min", "least"), " – ", end("max", "most"));
}

function chosen(form) {
  const all = [...new FormData(form)].map(([name, value]) => [name, value.trim()]);
  return new URLSearchParams(all.filter(([name, value]) => value !== "any" && (value || name === "split")));
}

async function fill(source, results, params, view) {
  const turn = (view.turn = (view.turn ?? 0) + 1);
  const offset = Math.max(0, Number(params.get("offset")) || 0);
  const { total, rows } = await source.list(params, offset, PAGE);
  if (turn !== view.turn) return; // a later question was faster
  const told = total ? counted(total, "trajectory", "trajectories") : "Nothing found";
  results.replaceChildren(
    el("p.total", {}, told),
    rows.length
      ? el(
          "ol.rows",
          { start: offset + 1 },
          rows.map((row, at) => line(row, params, offset + at)),
        )
      : nothing(total, params),
    pages(params, offset, total) ?? "",
  );
  say(told);
}

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

function line(row, params, at) {
  const there = new URLSearchParams(question(params));
  there.set("at", at);
  const words = searched(params);
  const failed = row.flags.length > 0 && el("span.flag", {}, `⚑ ${row.flags.map(spoken).join(", ")}`);
  return el(
    "li.row",
    {},
    el("a", { href: address("t", there, row.id), "data-id": row.id }, marked(row.question, words)),
    el("p.answer", {}, marked(row.answer, words)),
    el(
      "p.facts",
      {},
      el("span", {}, row.source),
      el("span", {}, counted(row.hops, "hop")),
      row.split && el("span", {}, row.split),
      !row.complete && el("span", {}, "not complete"),
      failed,
    ),
    measure("kept", `${row.kept}/${row.queries}`, row.kept / row.queries),
    measure("reward", signed(row.reward), row.reward / row.hops),
  );
}

function measure(name, text, share) {
  return el("p.measure", {}, el("span.name", {}, name), " ", el("span.value", {}, text), bar(share || 0));
}

function pages(params, offset, total) {
  if (total <= PAGE && !offset) return null;
  const to = (there, text, rel) => {
    if (there < 0 || there >= total) return el("span.quiet", {}, text);
    const changed = new URLSearchParams(question(params));
    if (there) changed.set("offset", there);
    return el("a", { href: address("t", changed), rel }, text);
  };
  const last = Math.floor((total - 1) / PAGE) * PAGE;
  return el(
    "nav.pages",
    { "aria-label": "Pages of results" },
    to(offset ? 0 : -1, "First"),
    to(offset ? Math.max(0, offset - PAGE) : -1, "Previous", "prev"),
    el("span", {}, `${number(offset + 1)}–${number(Math.min(total, offset + PAGE))} of ${number(total)}`),
    to(offset + PAGE, "Next", "next"),
    to(offset < last ? last : -1, "Last"),
  );
}

/** Focus the next (or previous) result; after the last one the next page comes. */
function step(results, way, view) {
  const links = [...results.querySelectorAll(".row a")];
  const next = links[links.indexOf(document.activeElement) + way];
  if (next ?? (document.activeElement.closest(".row") ? null : links[0])) return (next ?? links[0]).focus();
  const other = results.querySelector(`.pages a[rel="${way > 0 ? "next" : "prev"}"]`);
  if (!other) return undefined;
  view.arriving = way; // which end of the next page is focused
  return other.click();
}
