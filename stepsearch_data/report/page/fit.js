// Which rows of the index fit the filters of an address: by their own columns, by policies, and by their parts (hops,
// queries, rounds). The server of `view` does the same in SQL.

/** @import { Columns, Parts } from "./local.js" */
/** @typedef {(at: number) => boolean} Test of a row, or of a part */

const LISTED = /** @type {const} */ (["source", "type", "hops", "split", "difficulty", "rejected_by"]); // values to keep
const SEVERAL = /** @type {const} */ (["flags", "marks"]); // lists of such values
const TOLD = /** @type {const} */ (["passed", "complete", "answerable", "disagree"]); // true or false
const MEASURED = /** @type {const} */ (["hops", "queries", "kept", "share", "gain", "redundancy", "reward", "words"]);
const POLICY = "policy."; // before the name of a policy
const UNITS = ["hops", "queries", "rounds"];

/** Tests of a row by its own columns. @param {Columns} index @param {string[]} policies @param {URLSearchParams} params */
export function tests(index, policies, params) {
  /** @type {Test[]} */
  const all = [];
  for (const name of LISTED) if (params.has(name)) all.push(among(index[name], params.getAll(name)));
  for (const name of TOLD) if (params.has(name)) all.push(among(index[name], params.getAll(name)));
  for (const name of SEVERAL) {
    const wanted = params.getAll(name);
    if (wanted.length) all.push((at) => index[name][at].some((value) => wanted.includes(value)));
  }
  for (const name of MEASURED) all.push(...within(index[name], name, params));
  for (const [name, asked] of params) if (name.startsWith(POLICY)) all.push(answered(index, policies, name, asked));
  return all;
}

/** @param {Columns} index @param {string[]} policies @param {string} name @param {string} asked @returns {Test} */
function answered({ right }, policies, name, asked) {
  const policy = policies.indexOf(name.slice(POLICY.length));
  if (policy < 0) throw new Error(`This report has no ${name}.`);
  /** @type {{ [asked: string]: (right: boolean | null | undefined) => boolean }} */
  const answers = {
    right: (is) => is === true,
    wrong: (is) => is === false,
    some: (is) => typeof is === "boolean",
    none: (is) => typeof is !== "boolean",
  };
  const fits = answers[asked];
  if (!fits) throw new Error(`${name}: expected ${Object.keys(answers).join(", ")}.`);
  return (at) => fits(right[at][policy]);
}

/** @param {any[]} column @param {string[]} wanted @returns {Test} */
function among(column, wanted) {
  return (at) => wanted.includes(String(column[at]));
}

/** @param {any[]} column @param {string} name @param {URLSearchParams} params @returns {Test[]} */
function within(column, name, params) {
  const [least, most, below] = ["min", "max", "below"].map((end) => params.getAll(`${name}_${end}`).map(Number));
  return [
    ...least.map((end) => (/** @type {number} */ at) => column[at] !== null && column[at] >= end),
    ...most.map((end) => (/** @type {number} */ at) => column[at] !== null && column[at] <= end),
    ...below.map((end) => (/** @type {number} */ at) => column[at] !== null && column[at] < end),
  ];
}

/** @param {URLSearchParams} params */
export function asksForParts(params) {
  return [...params.keys()].some((name) => unitOf(name));
}

/** The unit that a filter is about. @param {string} name */
function unitOf(name) {
  return UNITS.find((unit) => name.startsWith(`${unit}.`));
}

/**
 * For each unit that is asked for, how many parts of every row fit all filters of it.
 * @param {Parts} parts
 * @param {URLSearchParams} params
 * @param {number} rows
 */
export function partsThatFit(parts, params, rows) {
  const units = [...new Set([...params.keys()].map(unitOf).filter((unit) => unit !== undefined))];
  return units.map((unit) => {
    const columns = parts[unit];
    const names = [...new Set([...params.keys()].filter((name) => unitOf(name) === unit))];
    const all = names.flatMap((name) => partTests(columns, name.slice(unit.length + 1), name, params));
    const counts = new Uint16Array(rows);
    columns.place.forEach((place, part) => {
      if (all.every((test) => test(part))) counts[place - 1]++;
    });
    return { unit, counts };
  });
}

/** @param {{ [column: string]: any[] }} columns @param {string} column @param {string} name @param {URLSearchParams} params */
function partTests(columns, column, name, params) {
  if (column in columns) return [among(columns[column], params.getAll(name))];
  const measured = column.replace(/_(min|max|below)$/, "");
  if (!(measured in columns) || measured === column) throw new Error(`This report has no ${name}.`);
  return within(columns[measured], measured, new URLSearchParams(params.getAll(name).map((end) => [column, end])));
}
