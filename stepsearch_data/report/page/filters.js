// The form above the list: words to search for, filters and the order.

import { question } from "./data.js";
import { counted, el, spoken } from "./dom.js";
import { MARKS } from "./marks.js";

/** @import { Facets, Summary } from "./shapes.js" */
/** @typedef {(params: URLSearchParams) => void} Change */

/** @type {[string, string][]} */
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
/** @type {[string, string][]} */
const YES_NO = [
  ["true", "yes"],
  ["false", "no"],
];
/** @type {[string, string][]} */
const ANSWERS = [
  ["right", "right"],
  ["wrong", "wrong"],
  ["some", "has rollouts"],
  ["none", "no rollouts"],
];

/**
 * The form. Every change of it becomes the page's address, and the address what is shown.
 * @param {Summary} about
 * @param {URLSearchParams} params
 * @param {Change} change
 */
export function filters({ facets, charts, policies }, params, change) {
  /** @param {keyof Facets} name @returns {[string, string][]} */
  const values = (name, say = spoken) =>
    facets[name].map((value) => [String(value), value === "" ? "none" : say(String(value))]);
  const form = /** @type {HTMLFormElement} */ (
    el(
      "form.filters",
      { role: "search", "aria-label": "Trajectories", submit: (event) => event.preventDefault() },
      searchField({ placeholder: "words of questions, answers, queries, titles, ids", spellcheck: "false" }),
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
          choice("rejected_by", "Rejected by", values("rejected_by")),
          charts.some(({ id }) => id === "agreement") && choice("disagree", "Engines disagree", YES_NO),
          choice(
            "marks",
            "Marked",
            values("marks", (value) => MARKS[value]),
          ),
          choice("split", "Split", values("split")),
          policies.map((name) => choice(`policy.${name}`, name, ANSWERS)),
          choice("complete", "Complete", YES_NO),
          choice("answerable", "Answerable", YES_NO),
          range("share", "Share of queries kept", 0.05),
          range("reward", "Reward, G − P", 0.1),
          choice("sort", "Order", ORDERS, 1),
          el("button", { type: "reset" }, "Clear"),
        ),
      ),
    )
  );
  const others = [...question(params)].filter(([name, value]) => !holds(form.elements.namedItem(name), value));
  form.append(el("ul.chips", { "aria-label": "More filters" }, others.map(chip)));
  let waiting = 0;
  form.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => change(chosen(form)), 80);
  });
  form.addEventListener("reset", () => {
    form.querySelector(".chips")?.replaceChildren();
    setTimeout(() => change(chosen(form)));
  });
  return form;
}

/** Have a field show a value, if it can. @param {Element | RadioNodeList | null} field @param {string} value */
function holds(field, value) {
  if (field instanceof HTMLInputElement) field.value = value;
  else if (field instanceof HTMLSelectElement && field.selectedIndex === 0) field.value = value;
  else return false;
  return field.value === value;
}

/** A filter that has no field, as a link of a count brings it; it can be taken away. @param {[string, string]} filter */
function chip([name, value]) {
  const [, unit, column, end] = /^(?:(hops|queries|rounds)\.)?(.*?)(?:_(min|max|below))?$/.exec(name) ?? [];
  const sign = { min: "≥", max: "≤", below: "<" }[end] ?? "=";
  const told = `${unit ? `${unit}: ` : ""}${spoken(column).replaceAll(".", " ")} ${sign} ${spoken(value)}`;
  /** @param {Event} event */
  const remove = ({ currentTarget }) => {
    const form = currentTarget instanceof HTMLElement && currentTarget.closest("form");
    if (!form) return;
    currentTarget.closest("li")?.remove();
    form.dispatchEvent(new Event("input"));
  };
  return el(
    "li",
    {},
    told,
    el("input", { type: "hidden", name, value }),
    el("button", { type: "button", "aria-label": `Remove ${told}`, click: remove }, "✕"),
  );
}

/**
 * A field to choose a value in; there is none where there is nothing to choose. "any" is no value.
 * @param {string} name
 * @param {string} label
 * @param {[string, string][]} values each with its text
 */
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

/** @param {string} name @param {string} label @param {number} step */
function range(name, label, step) {
  /** @param {string} which @param {string} text */
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

/** @param {HTMLFormElement} form */
function chosen(form) {
  const all = [...new FormData(form)].map(([name, value]) => [name, String(value).trim()]);
  return new URLSearchParams(all.filter(([name, value]) => value !== "any" && (value || name === "split")));
}

/** The field that words are searched by. @param {{ [name: string]: string }} attributes of its input */
export function searchField(attributes) {
  return el(
    "label.wide",
    {},
    el("span", {}, "Search"),
    el("input", { id: "search", type: "search", name: "text", autocomplete: "off", ...attributes }),
  );
}
