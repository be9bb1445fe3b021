// All in this page: an index of columns in memory, and what is fetched when it is needed: texts to search in, parts
// of trajectories to count, and chunks of records.

import { fromPage, question, searched } from "./data.js";
import { fileOf } from "./files.js";
import { asksForParts, partsThatFit, tests } from "./fit.js";

/** @import { Around, Counts, Found, Load, Row } from "./data.js" */
/** @import { Comparison, Index, Record, Rejects, Summary } from "./shapes.js" */
/** @typedef {Index & { share: number[] }} Columns */
/** @typedef {{ [unit: string]: { [column: string]: any[] } }} Parts */

const KEPT_CHUNKS = 8; // of the last trajectories that were looked at

export class Local {
  formats = ["csv", "jsonl"];
  /** @type {Map<number, Record[]>} */
  chunks = new Map();
  /** @type {{ key: string | null, rows: number[], parts: Counts }} */
  found = { key: null, rows: [], parts: {} };
  /** @type {Promise<{ texts: string[], lowered: string[] }> | null} */
  words = null; // made when first searched
  /** @type {Promise<Parts> | null} */
  parts = null;
  /** @type {Comparison | undefined} */
  compared;

  /** @param {Summary} summary @param {Index} index @param {Load} load */
  constructor(summary, index, load) {
    this.about = summary;
    this.load = load;
    /** @type {Columns} */
    this.index = { ...index, share: index.kept.map((kept, at) => kept / index.queries[at]) };
    this.rowOf = new Map(index.id.map((id, at) => [id, at]));
  }

  summary() {
    return this.about;
  }

  /** @param {URLSearchParams} params @param {number} offset @param {number} limit @returns {Promise<Found>} */
  async list(params, offset, limit) {
    const { rows, parts } = await this.matching(params);
    const texts = searched(params).length ? (await this.searchable()).texts : null;
    const shown = rows.slice(offset, offset + limit).map((at) => ({ ...this.row(at), texts: texts?.[at] }));
    return { total: rows.length, parts, rows: shown };
  }

  /** @param {string} id @param {URLSearchParams} params @returns {Promise<Around>} */
  async around(id, params) {
    const { rows } = await this.matching(params);
    const at = rows.indexOf(this.rowOf.get(id) ?? -1);
    /** @param {number} place */
    const neighbour = (place) => (at >= 0 && place in rows ? this.index.id[rows[place]] : null);
    return { at, total: rows.length, before: neighbour(at - 1), after: neighbour(at + 1) };
  }

  /** @param {string} id */
  async record(id) {
    const at = this.rowOf.get(id);
    if (at === undefined) return null;
    const size = this.index.chunk_rows;
    return (await this.chunk(Math.floor(at / size)))[at % size];
  }

  /** @returns {Promise<Rejects>} */
  rejects() {
    return fromPage("rejects");
  }

  /** @returns {Promise<Comparison | null>} */
  async comparison() {
    if (document.getElementById("comparison")) this.compared ??= await fromPage("comparison");
    return this.compared ?? null;
  }

  /** @param {string} id @returns {Promise<Record | null>} */
  async other(id) {
    const told = await this.comparison();
    const at = told?.others.indexOf(id) ?? -1;
    if (!told || at < 0) return null;
    const size = this.index.chunk_rows;
    return (await this.chunk(told.first_chunk + Math.floor(at / size)))[at % size];
  }

  /** @param {string} format @param {URLSearchParams} params */
  async file(format, params) {
    const { rows } = await this.matching(params);
    return fileOf(
      rows.map((at) => this.row(at)),
      this.about.policies,
      format,
    );
  }

  /** Fetch the texts while nothing else is to be done. */
  warm() {
    const later = window.requestIdleCallback ?? setTimeout;
    later(() => this.searchable().catch(() => {})); // the first search will tell
  }

  /** The last chunks are kept; one that could not be read is asked for again. @param {number} number */
  async chunk(number) {
    const records = this.chunks.get(number) ?? (await this.load(`chunk-${number}`));
    this.chunks.delete(number);
    this.chunks.set(number, records);
    if (this.chunks.size > KEPT_CHUNKS) this.chunks.delete([...this.chunks.keys()][0]);
    return records;
  }

  /** @param {number} at @returns {Row} */
  row(at) {
    const columns = Object.entries(this.index).filter(([name, column]) => name !== "share" && Array.isArray(column));
    return /** @type {any} */ (Object.fromEntries(columns.map(([name, column]) => [name, column[at]])));
  }

  /** What is searched of all rows, as it is and in lower case. */
  searchable() {
    const { id, question, answer } = this.index;
    this.words ??= this.load("texts").then(
      (texts) => ({
        texts,
        lowered: texts.map((/** @type {string} */ lines, /** @type {number} */ at) =>
          `${id[at]}\n${question[at]}\n${answer[at]}\n${lines}`.toLowerCase(),
        ),
      }),
      (error) => {
        this.words = null; // the next search asks again
        throw error;
      },
    );
    return this.words;
  }

  /**
   * Rows that pass all filters, sorted, and the parts asked for that they have; the last answer is kept, since pages
   * and neighbours ask the same.
   * @param {URLSearchParams} params
   */
  async matching(params) {
    const asked = question(params); // without empty values, which ask for nothing
    const key = asked.toString();
    if (this.found.key === key) return this.found;
    const words = searched(asked);
    const lowered = words.length ? (await this.searchable()).lowered : [];
    const fitting = asksForParts(asked) ? partsThatFit(await this.allParts(), asked, this.index.id.length) : [];
    const all = tests(this.index, this.about.policies, asked);
    if (words.length) all.push((at) => words.every((word) => lowered[at].includes(word)));
    for (const { counts } of fitting) all.push((at) => counts[at] > 0);
    /** @type {number[]} */
    const rows = [];
    for (let at = 0; at < this.index.id.length; at++) if (all.every((test) => test(at))) rows.push(at);
    const parts = fitting.map(({ unit, counts }) => [unit, rows.reduce((sum, at) => sum + counts[at], 0)]);
    this.found = { key, rows: this.sorted(rows, asked.get("sort")), parts: Object.fromEntries(parts) };
    return this.found;
  }

  allParts() {
    this.parts ??= this.load("parts").catch((error) => {
      this.parts = null;
      throw error;
    });
    return this.parts;
  }

  /**
   * By a column, descending with "-" before its name; equal ones stay in the order of the store.
   * @param {number[]} rows
   * @param {string | null} sort
   */
  sorted(rows, sort) {
    const name = (sort ?? "").replace(/^-/, "");
    const column = Object.entries(this.index).find(([known]) => known === name)?.[1];
    if (!Array.isArray(column)) return rows;
    const way = sort?.startsWith("-") ? -1 : 1;
    return rows.sort((a, b) => (column[a] < column[b] ? -way : column[a] > column[b] ? way : a - b));
  }
}
