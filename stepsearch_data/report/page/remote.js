// The server of `view`, over a store that may be growing.

import { question } from "./data.js";

/** @import { Around, Found } from "./data.js" */
/** @import { Mark, Rejects } from "./shapes.js" */

export class Remote {
  formats = ["csv", "jsonl", "parquet"];

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

  /** @param {string} format @param {URLSearchParams} params */
  file(format, params) {
    return `api/trajectories.${format}?${question(params)}`;
  }

  /** @type {Promise<unknown>} */
  marking = Promise.resolve(); // changes are sent one after the other, and later answers show them

  /** @param {string} id @param {Partial<Mark>} change @returns {Promise<Mark>} */
  mark = (id, change) => {
    const how = {
      method: "PUT",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(change),
      keepalive: true, // also when the page is left
    };
    const sent = this.marking.then(() => this.ask(`api/mark/${encodeURIComponent(id)}`, {}, how));
    this.marking = sent.catch(() => {});
    return sent;
  };

  /** @param {string} path @param {{ [status: number]: any }} instead */
  async get(path, instead = {}) {
    await this.marking;
    return this.ask(path, instead);
  }

  /** @param {string} path @param {{ [status: number]: any }} instead @param {RequestInit} [how] @returns {Promise<any>} */
  async ask(path, instead, how) {
    const reply = await fetch(path, how).catch(() => null);
    if (!reply) throw new Error("The server does not answer: is `stepsearch-data view` still running?");
    if (reply.status in instead) return instead[reply.status];
    const told = await reply.json().catch(() => ({}));
    if (!reply.ok) throw new Error(told.detail ?? `The server answered with status ${reply.status}.`);
    return told;
  }
}
