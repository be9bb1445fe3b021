// Addresses: #/ the overview, #/t?… the list, #/t/ID?… a trajectory, #/r?… rejected rows, #/c two stores compared,
// #/d?… trajectories that differ, #/d/ID?… one of them; and what a view is.

/** @typedef {{ kind: "overview" | "t" | "trajectory" | "r" | "c" | "d" | "difference", params: URLSearchParams, id: string }} Place */
/**
 * @typedef {object} View
 * @property {string} title
 * @property {HTMLElement} node
 * @property {() => void} [shown] is called when it is in the page
 * @property {() => void} [left] is called when it is so no more
 * @property {(params: URLSearchParams) => Promise<void>} [update] shows other rows of the list
 * @property {{ [key: string]: () => void }} [keys]
 * @property {() => void} [escape]
 * @property {number} [arriving] the end of the next page that will be focused: 1 for the first row, -1 for the last
 */

/** The address of the list or of a trajectory. @param {URLSearchParams} params @param {string} [id] */
export function address(params, id) {
  const query = params.toString();
  return `#/t${id === undefined ? "" : `/${encodeURIComponent(id)}`}${query && `?${query}`}`;
}

/** The address of rejected rows. @param {URLSearchParams} params */
export function rejectsAt(params) {
  return address(params).replace("#/t", "#/r");
}

/** The address of trajectories that differ, or of one of them. @param {URLSearchParams} params @param {string} [id] */
export function changesAt(params, id) {
  return address(params, id).replace("#/t", "#/d");
}

/** Where the page's address leads. @returns {Place} */
export function place() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const params = new URLSearchParams(query ?? "");
  if (path.startsWith("t/")) return { kind: "trajectory", params, id: named(path.slice(2)) };
  if (path.startsWith("d/")) return { kind: "difference", params, id: named(path.slice(2)) };
  const kind = /** @type {const} */ (["t", "r", "c", "d"]).find((name) => path.startsWith(name)) ?? "overview";
  return { kind, params, id: "" };
}

/** @param {string} there */
export function go(there) {
  location.hash = there;
}

/** @param {string} text */
function named(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a stray % in an address written by hand
  }
}
