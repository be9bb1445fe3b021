// Where trajectories come from: from inside the page, from chunks beside it, or from the server of `view`.
// `params` are URLSearchParams with the same names in the page's address and in the server's API.

import { el, own } from "./dom.js";

/** @import { Comparison, Index, Mark, Record, Rejects, Summary } from "./shapes.js" */
/** @typedef {Index & { share: number[] }} Columns */
/** @typedef {{ [Name in keyof Omit<Index, "chunk_rows">]: Index[Name][number] }} Row */
/** @typedef {{ total: number, rows: Row[] }} Found */
/** @typedef {{ at: number, total: number, before: string | null, after: string | null }} Around where a row stands */
/** @typedef {(number: number) => Promise<Record[]>} Load */
/**
 * @template T
 * @typedef {T | Promise<T>} Soon
 */
/**
 * @typedef {object} Source
 * @property {() => Soon<Summary>} summary
 * @property {(params: URLSearchParams, offset: number, limit: number) => Soon<Found>} list
 * @property {(id: string, params: URLSearchParams) => Soon<Around>} around
 * @property {(id: string) => Soon<Record | null>} record
 * @property {() => Soon<Rejects>} rejects
 * @property {() => Soon<Comparison | null>} comparison with another store, where the page was made with one
 * @property {(id: string) => Soon<Record | null>} other the trajectory as the other store has it, if it differs
 * @property {(id: string, change: Partial<Mark>) => Promise<Mark>} [mark] changes what the reader says; a report has none
 */

const LISTED = /** @type {const} */ (["source", "type", "hops", "split", "difficulty", "rejected_by"]); // values to keep
const SEVERAL = /** @type {const} */ (["flags", "marks"]); // lists of such values
const TOLD = /** @type {const} */ (["passed", "complete", "answerable", "disagree"]); // true or false
const MEASURED = /** @type {const} */ (["hops", "queries", "kept", "share", "gain", "redundancy", "reward"]); // …_min/_max
const KEPT_CHUNKS = 8; // of the last trajectories that were looked at

/** The source that the page was made with. @returns {Promise<Source>} */
export async function openSource() {
  const { mode } = JSON.parse(held("mode"));
  if (mode === "remote") return new Remote();
  return new Local(JSON.parse(held("summary")), await unpacked(held("index")), mode === "chunks" ? fromFile : fromPage);
}

/** The text of a script of the page, which is data. @param {string} id */
function held(id) {
  return own(id, HTMLScriptElement).text;
}

/** JSON from gzip in base64. @param {string} text @returns {Promise<any>} */
async function unpacked(text) {
  const raw = atob(text.trim());
  const bytes = new Uint8Array(raw.length);
  for (let at = 0; at < raw.length; at++) bytes[at] = raw.charCodeAt(at);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

/** @type {Load} */
function fromPage(number) {
  return unpacked(held(`chunk-${number}`));
}

/** @type {Map<number, (text: string) => void>} */
const arriving = new Map(); // number of a chunk → who waits for its text

/** @param {number} number @param {string} text */
const stepsearchChunk = (number, text) => arriving.get(number)?.(text);
Object.assign(window, { stepsearchChunk }); // the chunks call it

/** A chunk beside the page. A script tag also works from file://, where fetch() does not. @type {Load} */
async function fromFile(number) {
  const file = `chunks/${String(number).padStart(4, "0")}.js`;
  const script = el("script", { src: file });
  const text = await /** @type {Promise<string>} */ (
    new Promise((resolve, reject) => {
      arriving.set(number, resolve);
      script.addEventListener("error", () => reject(new Error(`${file} is missing: it must lie beside this page.`)));
      document.head.append(script);
    })
  ).finally(() => script.remove());
  return unpacked(text);
}

/** All in this page: an index of columns in memory, and chunks of records. */
class Local {
  /** @type {Map<number, Record[]>} */
  chunks = new Map();
  /** @type {{ key: string | null, rows: number[] }} */
  found = { key: null, rows: [] };
  /** @type {string[] | null} */
  words = null; // lower-cased texts, made when first searched
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

  /** @param {URLSearchParams} params @param {number} offset @param {number} limit */
  list(params, offset, limit) {
    const rows = this.matching(params);
    return { total: rows.length, rows: rows.slice(offset, offset + limit).map((at) => this.row(at)) };
  }

  /** @param {string} id @param {URLSearchParams} params */
  around(id, params) {
    const rows = this.matching(params);
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
    return unpacked(held("rejects"));
  }

  /** @returns {Promise<Comparison | null>} */
  async comparison() {
    if (document.getElementById("comparison")) this.compared ??= await unpacked(held("comparison"));
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

  /** The last chunks are kept; one that could not be read is asked for again. @param {number} number */
  async chunk(number) {
    const records = this.chunks.get(number) ?? (await this.load(number));
    this.chunks.delete(number);
    this.chunks.set(number, records);
    if (this.chunks.size > KEPT_CHUNKS) this.chunks.delete([...this.chunks.keys()][0]);
    return records;
  }

  /** @param {number} at @returns {Row} */
  row(at) {
    const columns = Object.entries(this.index).filter(([, column]) => Array.isArray(column));
    return /** @type {any} */ (Object.fromEntries(columns.map(([name, column]) => [name, column[at]])));
  }

  /**
   * Rows that pass all filters, sorted; the last answer is kept, since pages and neighbours ask the same.
   * @param {URLSearchParams} params
   */
  matching(params) {
    const key = question(params).toString();
    if (this.found.key !== key) {
      const tests = this.tests(params);
      const rows = [];
      for (let at = 0; at < this.index.id.length; at++) if (tests.every((test) => test(at))) rows.push(at);
      this.found = { key, rows: this.sorted(rows, params.get("sort")) };
    }
    return this.found.rows;
  }

  /** @param {URLSearchParams} params */
  tests(params) {
    const { index } = this;
    /** @type {((at: number) => boolean)[]} */
    const tests = [];
    for (const name of LISTED) {
      const wanted = new Set(params.getAll(name));
      if (wanted.size) tests.push((at) => wanted.has(String(index[name][at])));
    }
    for (const name of SEVERAL) {
      const wanted = new Set(params.getAll(name));
      if (wanted.size) tests.push((at) => index[name][at].some((value) => wanted.has(value)));
    }
    for (const name of TOLD) {
      const wanted = params.get(name);
      if (wanted) tests.push((at) => String(index[name][at]) === wanted);
    }
    for (const name of MEASURED) {
      const [least, most] = [params.get(`${name}_min`), params.get(`${name}_max`)];
      if (least) tests.push((at) => index[name][at] >= Number(least));
      if (most) tests.push((at) => index[name][at] <= Number(most));
    }
    const words = searched(params);
    if (words.length) tests.push((at) => words.every((word) => this.text(at).includes(word)));
    return tests;
  }

  /** @param {number} at */
  text(at) {
    const { id, question, answer } = this.index;
    this.words ??= id.map((name, row) => `${name}\n${question[row]}\n${answer[row]}`.toLowerCase());
    return this.words[at];
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

/** The server of `view`, over a store that may be growing. */
class Remote {
  summary() {
    return this.get("api/summary");
  }

  /** @param {URLSearchParams} params @param {number} offset @param {number} limit @returns {Promise<Found>} */
  list(params, offset, limit) {
    const asked = [...question(params), ["offset", String(offset)], ["limit", String(limit)]];
    return this.get(`api/trajectories?${new URLSearchParams(asked)}`);
  }

  /** @param {string} id @param {URLSearchParams} params @returns {Promise<Around>} */
  async around(id, params) {
    const at = Number(params.get("at") ?? -1);
    if (at < 0) return { at: -1, total: 0, before: null, after: null };
    const first = Math.max(0, at - 1);
    const { total, rows } = await this.list(params, first, 3);
    const names = rows.map((row) => row.id);
    const here = names.indexOf(id);
    if (here < 0) return { at: -1, total, before: null, after: null };
    return { at: first + here, total, before: names[here - 1] ?? null, after: names[here + 1] ?? null };
  }

  /** @returns {Promise<Rejects>} */
  rejects() {
    return this.get("api/rejects");
  }

  /** @param {string} id */
  async record(id) {
    return this.get(`api/trajectory/${encodeURIComponent(id)}`, { 404: null });
  }

  comparison() {
    return null;
  }

  other() {
    return null;
  }

  /** @param {string} id @param {Partial<Mark>} change @returns {Promise<Mark>} */
  mark = (id, change) =>
    this.get(
      `api/mark/${encodeURIComponent(id)}`,
      {},
      {
        method: "PUT",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(change),
        keepalive: true, // also when the page is left
      },
    );

  /** @param {string} path @param {{ [status: number]: any }} instead @param {RequestInit} [how] @returns {Promise<any>} */
  async get(path, instead = {}, how = {}) {
    const reply = await fetch(path, how).catch(() => null);
    if (!reply) throw new Error("The server does not answer: is `stepsearch-data view` still running?");
    if (reply.status in instead) return instead[reply.status];
    const told = await reply.json().catch(() => ({}));
    if (!reply.ok) throw new Error(told.detail ?? `The server answered with status ${reply.status}.`);
    return told;
  }
}

/** What of these parameters decides the rows and their order. @param {URLSearchParams} params */
export function question(params) {
  return new URLSearchParams(
    [...params].filter(([name, value]) => !["offset", "at"].includes(name) && (value || name === "split")),
  );
}

/** @param {URLSearchParams} params */
export function searched(params) {
  return (params.get("text") ?? "").toLowerCase().split(/\s+/).filter(Boolean);
}
