// The page as a whole: which view an address shows, the keys, the theme.

const THEMES = ["auto", "light", "dark"];
let source;
let view = null; // what is shown: {title, node}, and where there is need shown(), left(), update(params), keys, escape()
let shown = {}; // its place: {kind: "overview", "t" (the list) or "trajectory", params, id}
let turns = 0;

document.addEventListener("DOMContentLoaded", start);

async function start() {
  theme(remembered("theme") ?? "auto");
  listen();
  try {
    source = await openSource();
    await show({ first: true });
  } catch (error) {
    problem(error);
  }
}

function listen() {
  const help = document.getElementById("help");
  const keysOn = document.getElementById("keys-on");
  keysOn.checked = remembered("keys") !== "off";
  keysOn.addEventListener("change", () => remember("keys", keysOn.checked ? "on" : "off"));
  document.getElementById("help-open").addEventListener("click", () => help.showModal());
  document.getElementById("theme").addEventListener("click", nextTheme);
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address is the view's
    document.getElementById("main").focus();
  });
  window.addEventListener("hashchange", () => show({}));
  document.addEventListener("keydown", pressed);
  window.addEventListener("beforeprint", () => unfold(true));
  window.addEventListener("afterprint", () => unfold(false));
}

// ---- addresses: #/ the overview, #/t?… the list, #/t/ID?… a trajectory

function address(kind, params, id) {
  const query = params.toString();
  return `#/${kind}${id === undefined ? "" : `/${encodeURIComponent(id)}`}${query && `?${query}`}`;
}

function place() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const params = new URLSearchParams(query ?? "");
  if (!path.startsWith("t")) return { kind: "overview", params };
  return path.startsWith("t/") ? { kind: "trajectory", params, id: named(path.slice(2)) } : { kind: "t", params };
}

function named(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a stray % in an address written by hand
  }
}

function go(there) {
  location.hash = there;
}

/** Another address of the list without a step back to the old one, as while typing. */
function replaceList(params) {
  if (place().kind !== "t") return; // a result was opened meanwhile
  history.replaceState(null, "", address("t", params));
  void show({ typing: true });
}

// ---- views

const VIEWS = {
  overview: () => overview(source),
  t: ({ params }) => browse(source, params),
  trajectory: ({ params, id }) => trajectory(source, params, id),
};

async function show({ first = false, typing = false }) {
  const there = place();
  const turn = ++turns;
  try {
    if (typing && shown.kind === "t") return void (await view.update(there.params));
    const next = await VIEWS[there.kind](there);
    if (turn === turns) change(next, there, first);
  } catch (error) {
    if (turn === turns) problem(error);
  }
}

function change(next, there, first) {
  const main = document.getElementById("main");
  const [before, way] = [shown.id, view?.arriving];
  view?.left?.();
  [view, shown] = [next, there];
  main.replaceChildren(next.node);
  main.removeAttribute("aria-busy");
  document.title = `${next.title} · stepsearch-data`;
  const current = {
    overview: there.kind === "overview" && "page",
    trajectories: { t: "page", trajectory: "true" }[there.kind],
  };
  for (const [name, value] of Object.entries(current)) {
    const link = document.getElementById(`to-${name}`);
    if (value) link.setAttribute("aria-current", value);
    else link.removeAttribute("aria-current");
  }
  next.shown?.();
  if (!first) attend(next.node, before, way);
}

/** Where the focus goes: to the result that one came from or stepped to, else to the heading. */
function attend(node, before, way) {
  const links = [...node.querySelectorAll(".row a")];
  const from = links.find((link) => link.dataset.id === before) ?? (way ? links.at(way > 0 ? 0 : -1) : null);
  const goal = from ?? node.querySelector("h1");
  if (!from) window.scrollTo(0, 0);
  goal.focus({ preventScroll: !from });
}

function problem(error) {
  const main = document.getElementById("main");
  main.removeAttribute("aria-busy");
  [view, shown] = [null, {}];
  main.replaceChildren(
    el(
      "article",
      {},
      el("h1", { tabindex: "-1" }, "This cannot be shown"),
      el("p.problem", { role: "alert" }, error.message),
    ),
  );
}

// ---- keys

/** Keys of the view and of the page; never those that a field, a modifier or an open dialog wants. */
function pressed(event) {
  if (
    event.defaultPrevented ||
    event.ctrlKey ||
    event.metaKey ||
    event.altKey ||
    document.querySelector("dialog[open]")
  )
    return;
  const typing = event.target.closest("input:not([type=checkbox]), select, textarea, [contenteditable]");
  const keys = { ...view?.keys, "/": toSearch, "?": () => document.getElementById("help").showModal() };
  const act = event.key === "Escape" ? view?.escape : document.getElementById("keys-on").checked && keys[event.key];
  if (typing || !act) return;
  event.preventDefault();
  act();
}

async function toSearch() {
  if (shown.kind !== "t") {
    history.pushState(null, "", "#/t");
    await show({});
  }
  document.getElementById("search")?.focus();
}

// ---- theme, paper, memory

function theme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  document.getElementById("theme").replaceChildren("◐ ", el("span", {}, "Theme: "), name);
}

function nextTheme() {
  const chosen = document.documentElement.dataset.theme ?? "auto";
  const next = THEMES[(THEMES.indexOf(chosen) + 1) % THEMES.length];
  remember("theme", next);
  theme(next);
}

/** On paper nothing can be unfolded: what is folded is opened before printing, and closed again. */
function unfold(open) {
  const chosen = open ? "main details:not([open], .raw, figure > *)" : "details[data-unfolded]";
  for (const details of document.querySelectorAll(chosen)) {
    details.open = open;
    details.toggleAttribute("data-unfolded", open);
  }
}

/** The browser's storage may be forbidden, as in a private window or a frame. */
function remembered(name) {
  try {
    return localStorage.getItem(`stepsearch-${name}`);
  } catch {
    return null;
  }
}

function remember(name, value) {
  try {
    localStorage.setItem(`stepsearch-${name}`, value);
  } catch {
    // it is only convenience
  }
}
