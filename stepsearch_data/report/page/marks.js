// What the reader says of a trajectory: good, bad, a note. `view` keeps it with the store; a report only shows it.

import { button, el, say } from "./dom.js";

/** @import { Source } from "./data.js" */
/** @import { Mark, Record } from "./shapes.js" */
/** @typedef {{ node: HTMLElement | null, keys: { [key: string]: () => void }, left: () => void, shown: () => void }} Marking */

/** @type {{ [mark: string]: string }} */
export const MARKED = { good: "✓ good", bad: "✕ bad", note: "✎ note" };
/** What the list is filtered by; letters come first, as those choose in a field. @type {{ [mark: string]: string }} */
export const MARKS = { good: "good", bad: "bad", note: "with a note", none: "not marked" };

/** @param {Source} source @param {Record} record @returns {Marking} */
export function marking(source, record) {
  if (source.mark) return markable(source.mark, record);
  const { mark } = record;
  return { node: mark.mark || mark.note ? toldMark(mark) : null, keys: {}, shown: () => {}, left: () => {} };
}

/** @param {NonNullable<Source["mark"]>} send @param {Record} record @returns {Marking} */
function markable(send, { id, mark }) {
  let now = mark;
  const state = el("p.quiet");
  const note = /** @type {HTMLTextAreaElement} */ (
    el("textarea", {
      id: "note",
      rows: "1",
      placeholder: "Note",
      maxlength: "10000",
      input: () => tell(),
      change: () => write(),
    })
  );
  const buttons = { good: button(MARKED.good, () => toggle("good")), bad: button(MARKED.bad, () => toggle("bad")) };

  /** @param {string} [problem] */
  function tell(problem) {
    for (const [which, each] of Object.entries(buttons)) each.setAttribute("aria-pressed", String(now.mark === which));
    state.className = problem ? "problem" : "quiet";
    state.textContent = problem ?? (note.value.trim() === now.note ? "" : "The note is not saved yet.");
    if (problem) say(problem);
  }
  /** @param {Partial<Mark>} change @param {string} done */
  async function put(change, done) {
    const shown = now.note;
    try {
      now = await send(id, change);
      if (note.value.trim() === shown) note.value = now.note; // another tab may have written it
      tell();
      say(done);
    } catch (error) {
      tell(error instanceof Error ? error.message : String(error));
    }
  }
  /** @param {"good" | "bad"} which */
  function toggle(which) {
    if (now.mark === which) put({ mark: "" }, `No longer marked ${which}`);
    else put({ mark: which }, `Marked ${which}`);
  }
  function write() {
    if (note.value.trim() !== now.note) put({ note: note.value }, "Note saved");
  }
  note.value = mark.note;
  note.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" && !(event.key === "Enter" && (event.ctrlKey || event.metaKey))) return;
    event.preventDefault();
    note.blur(); // which saves it
    document.querySelector("h1")?.focus({ preventScroll: true });
  });
  tell();
  const node = el(
    "section.marking",
    { "aria-label": "Your mark" },
    el("div", { role: "group", "aria-label": "Mark" }, buttons.good, buttons.bad),
    el("label", {}, el("span", {}, "Note"), note),
    state,
  );
  return {
    node,
    keys: { g: () => toggle("good"), b: () => toggle("bad"), m: () => note.focus() },
    shown: () => window.addEventListener("pagehide", write),
    left: () => {
      window.removeEventListener("pagehide", write);
      write();
    },
  };
}

/** @param {Mark} mark */
function toldMark({ mark, note }) {
  return el(
    "section.marking",
    { "aria-label": "A reader's mark" },
    mark && el("p", {}, el("strong", {}, MARKED[mark])),
    note && el("p.note", {}, note),
  );
}
