// Where trajectories come from: from inside the page, from chunks beside it, or from the server of `view`.
// `params` are URLSearchParams with the same names in the page's address and in the server's API.

import { el, own } from "./dom.js";
import { Local } from "./local.js";
import { Remote } from "./remote.js";

/** @import { Comparison, Index, Mark, Record, Rejects, Summary } from "./shapes.js" */
/** @typedef {{ [Name in keyof Omit<Index, "chunk_rows">]: Index[Name][number] } & { texts?: string }} Row */
/** @typedef {{ [unit: string]: number }} Counts of the parts that were asked for */
/** @typedef {{ total: number, parts: Counts, rows: Row[] }} Found */
/** @typedef {{ at: number, total: number, before: string | null, after: string | null }} Around where a row stands */
/** @typedef {(name: string) => Promise<any>} Load */
/**
 * @template T
 * @typedef {T | Promise<T>} Soon
 */
/**
 * @typedef {object} Source
 * @property {string[]} formats of what is shown, to download
 * @property {() => Soon<Summary>} summary
 * @property {(params: URLSearchParams, offset: number, limit: number) => Soon<Found>} list
 * @property {(id: string, params: URLSearchParams) => Soon<Around>} around
 * @property {(id: string) => Soon<Record | null>} record
 * @property {() => Soon<Rejects>} rejects
 * @property {() => Soon<Comparison | null>} comparison with another store, where the page was made with one
 * @property {(id: string) => Soon<Record | null>} other the trajectory as the other store has it, if it differs
 * @property {(id: string, change: Partial<Mark>) => Promise<Mark>} [mark] changes what the reader says; a report has none
 * @property {(format: string, params: URLSearchParams) => Soon<string>} file address of a file of the whole list
 * @property {() => void} [warm] fetches what a search will need
 */

/** The source that the page was made with. @returns {Promise<Source>} */
export async function openSource() {
  const { mode } = JSON.parse(held("mode"));
  if (mode === "remote") return new Remote();
  return new Local(JSON.parse(held("summary")), await fromPage("index"), mode === "chunks" ? fromFile : fromPage);
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
export function fromPage(name) {
  return unpacked(held(name));
}

/** @type {Map<string, (text: string) => void>} */
const arriving = new Map(); // name of a chunk → who waits for its text

/** @param {string} name @param {string} text */
const stepsearchChunk = (name, text) => arriving.get(name)?.(text);
Object.assign(window, { stepsearchChunk }); // the chunks call it

/** A chunk beside the page. A script tag also works from file://, where fetch() does not. @type {Load} */
async function fromFile(name) {
  const file = `chunks/${name}.js`;
  const script = el("script", { src: file });
  const text = await /** @type {Promise<string>} */ (
    new Promise((resolve, reject) => {
      arriving.set(name, resolve);
      script.addEventListener("error", () => reject(new Error(`${file} is missing: it must lie beside this page.`)));
      document.head.append(script);
    })
  ).finally(() => script.remove());
  return unpacked(text);
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
