// The page as a whole: which view an address shows, the keys, the theme.

import { browse, resultsIn } from "./browse.js";
import { changes, comparison, difference } from "./compare.js";
import { openSource } from "./data.js";
import { el, own } from "./dom.js";
import { overview } from "./overview.js";
import { address, changesAt, place, rejectsAt } from "./place.js";
import { rejects } from "./rejects.js";
import { trajectory } from "./trajectory.js";

/** @import { Source } from "./data.js" */
/** @import { Place, View } from "./place.js" */

const THEMES = ["auto", "light", "dark"];
/** @type {Source} */
let source;
/** @type {View | null} */
let view = null; // what is shown
/** @type {Place | null} */
let shown = null; // its place
let turns = 0;

document.addEventListener("DOMContentLoaded", start);

async function start() {
  theme(remembered("theme") ?? "auto");
  listen();
  try {
    source = await openSource();
    for (const row of document.querySelectorAll(".of-marks")) row.toggleAttribute("hidden", !source.mark);
    if (await source.comparison()) {
      own("to-changes", HTMLElement).hidden = false;
      if (!location.hash) history.replaceState(null, "", "#/c"); // who compares looks at that first
    }
    await show({ first: true });
  } catch (error) {
    problem(error);
  }
}

function listen() {
  const keysOn = own("keys-on", HTMLInputElement);
  keysOn.checked = remembered("keys") !== "off";
  keysOn.addEventListener("change", () => remember("keys", keysOn.checked ? "on" : "off"));
  own("help-open", HTMLElement).addEventListener("click", help);
  own("theme", HTMLElement).addEventListener("click", nextTheme);
  document.querySelector(".skip")?.addEventListener("click", (event) => {
    event.preventDefault(); // the address is the view's
    own("main", HTMLElement).focus();
  });
  window.addEventListener("hashchange", () => show({}));
  document.addEventListener("keydown", pressed);
  window.addEventListener("beforeprint", () => unfold(true));
  window.addEventListener("afterprint", () => unfold(false));
}

/**
 * Another address of a list without a step back to the old one, as while typing.
 * @param {"t" | "r" | "d"} kind
 * @param {string} there
 */
function replaceList(kind, there) {
  if (place().kind !== kind) return; // a result was opened meanwhile
  history.replaceState(null, "", there);
  void show({ typing: true });
}

// ---- views

/** @param {Place} there @returns {Promise<View>} */
function viewOf({ kind, params, id }) {
  if (kind === "trajectory") return trajectory(source, params, id);
  if (kind === "r") return rejects(source, params, (asked) => replaceList("r", rejectsAt(asked)));
  if (kind === "c") return comparison(source);
  if (kind === "d") return changes(source, params, (asked) => replaceList("d", changesAt(asked)));
  if (kind === "difference") return difference(source, params, id);
  return kind === "t" ? browse(source, params, (asked) => replaceList("t", address(asked))) : overview(source);
}

/** @param {{ first?: boolean, typing?: boolean }} how */
async function show({ first = false, typing = false }) {
  const there = place();
  const turn = ++turns;
  try {
    if (typing && shown?.kind === there.kind) return void (await view?.update?.(there.params));
    const next = await viewOf(there);
    if (turn === turns) change(next, there, first);
  } catch (error) {
    if (turn === turns) problem(error);
  }
}

/** @param {View} next @param {Place} there @param {boolean} first */
function change(next, there, first) {
  const main = own("main", HTMLElement);
  const [before, way] = [shown?.id, view?.arriving];
  view?.left?.();
  [view, shown] = [next, there];
  main.replaceChildren(next.node);
  main.removeAttribute("aria-busy");
  document.title = `${next.title} · stepsearch-data`;
  const current = {
    overview: there.kind === "overview" && "page",
    trajectories: (there.kind === "t" && "page") || (there.kind === "trajectory" && "true"),
    rejects: there.kind === "r" && "page",
    changes: (there.kind === "c" && "page") || (["d", "difference"].includes(there.kind) && "true"),
  };
  for (const [name, value] of Object.entries(current)) {
    const link = own(`to-${name}`, HTMLElement);
    if (value) link.setAttribute("aria-current", value);
    else link.removeAttribute("aria-current");
  }
  next.shown?.();
  if (!first) attend(next.node, before, way);
}

/**
 * Where the focus goes: to the result that one came from or stepped to, else to the heading.
 * @param {HTMLElement} node
 * @param {string | undefined} before
 * @param {number | undefined} way
 */
function attend(node, before, way) {
  const links = resultsIn(node);
  const from = links.find((link) => link.dataset.id === before) ?? (way ? links.at(way > 0 ? 0 : -1) : null);
  const goal = from ?? node.querySelector("h1");
  if (!from) window.scrollTo(0, 0);
  goal?.focus({ preventScroll: !from });
}

/** @param {unknown} error */
function problem(error) {
  const main = own("main", HTMLElement);
  main.removeAttribute("aria-busy");
  [view, shown] = [null, null];
  main.replaceChildren(
    el(
      "article",
      {},
      el("h1", { tabindex: "-1" }, "This cannot be shown"),
      el("p.problem", { role: "alert" }, error instanceof Error ? error.message : String(error)),
    ),
  );
}

// ---- keys

/**
 * Keys of the view and of the page; never those that a field, a modifier or an open dialog wants.
 * @param {KeyboardEvent} event
 */
function pressed(event) {
  if (
    event.defaultPrevented ||
    event.ctrlKey ||
    event.metaKey ||
    event.altKey ||
    document.querySelector("dialog[open]")
  )
    return;
  const typing = "input:not([type=checkbox]), select, textarea, [contenteditable]";
  /** @type {{ [key: string]: () => void }} */
  const keys = { ...view?.keys, "/": toSearch, "?": help };
  const act = event.key === "Escape" ? view?.escape : own("keys-on", HTMLInputElement).checked && keys[event.key];
  if ((event.target instanceof Element && event.target.closest(typing)) || !act) return;
  event.preventDefault();
  act();
}

function help() {
  own("help", HTMLDialogElement).showModal();
}

async function toSearch() {
  if (shown?.kind !== "t") {
    history.pushState(null, "", "#/t");
    await show({});
  }
  document.getElementById("search")?.focus();
}

// ---- theme, paper, memory

/** @param {string} name */
function theme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  own("theme", HTMLElement).replaceChildren("◐ ", el("span", {}, "Theme: "), name);
}

function nextTheme() {
  const chosen = document.documentElement.dataset.theme ?? "auto";
  const next = THEMES[(THEMES.indexOf(chosen) + 1) % THEMES.length];
  remember("theme", next);
  theme(next);
}

/**
 * On paper nothing can be unfolded: what is folded is opened before printing, and closed again.
 * @param {boolean} open
 */
function unfold(open) {
  const chosen = open ? "main details:not([open], .raw, figure > *)" : "details[data-unfolded]";
  for (const details of document.querySelectorAll(chosen)) {
    details.toggleAttribute("open", open);
    details.toggleAttribute("data-unfolded", open);
  }
}

/** The browser's storage may be forbidden, as in a private window or a frame. @param {string} name */
function remembered(name) {
  try {
    return localStorage.getItem(`stepsearch-${name}`);
  } catch {
    return null;
  }
}

/** @param {string} name @param {string} value */
function remember(name, value) {
  try {
    localStorage.setItem(`stepsearch-${name}`, value);
  } catch {
    // it is only convenience
  }
}
