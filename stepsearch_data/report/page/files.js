// The list as a file: what is shown, in full, and the address of it.

import { button, el, say } from "./dom.js";

/** @import { Row, Source } from "./data.js" */

const KINDS_OF_FILES = { csv: "text/csv", jsonl: "application/jsonl" };
const STAYS = 60_000; // milliseconds until the file of a download is forgotten

/** A file of trajectories. @param {Row[]} rows @param {string[]} policies @param {string} format */
export function fileOf(rows, policies, format) {
  return asFile(
    rows.map((row) => cells(row, policies)),
    format,
  );
}

/** A file of rows; returns its address in this page. @param {object[]} told @param {string} format */
export function asFile(told, format) {
  const text = format === "csv" ? csv(told) : told.map((row) => `${JSON.stringify(row)}\n`).join("");
  const type = format === "csv" ? KINDS_OF_FILES.csv : KINDS_OF_FILES.jsonl;
  const address = URL.createObjectURL(new Blob([text], { type: `${type};charset=utf-8` }));
  setTimeout(() => URL.revokeObjectURL(address), STAYS);
  return address;
}

/** @param {Row} row @param {string[]} policies @returns {{ [column: string]: unknown }} */
function cells({ right, ...row }, policies) {
  return { ...row, ...Object.fromEntries(policies.map((name, at) => [`policy.${name}`, right[at] ?? null])) };
}

/** With CRLF and quotes as RFC 4180 says; several values stand in one cell, with spaces. @param {object[]} rows */
function csv(rows) {
  const columns = Object.keys(rows[0] ?? {});
  /** @param {unknown} value */
  const written = (value) => {
    const text = value === null ? "" : Array.isArray(value) ? value.join(" ") : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [columns, ...rows.map(Object.values)].map((row) => `${row.map(written).join(",")}\r\n`).join("");
}

/** Buttons that take away what is shown. @param {Pick<Source, "formats" | "file">} source @param {() => URLSearchParams} asked */
export function takeAway(source, asked) {
  /** @param {string} format */
  const download = async (format) => {
    const href = await source.file(format, asked());
    el("a", { href, download: `trajectories.${format}` }).click();
  };
  return el(
    "p.take",
    {},
    button("Copy link", copyLink),
    el("span.quiet", {}, "Download"),
    source.formats.map((format) =>
      button(format === "parquet" ? "Parquet" : format.toUpperCase(), () => download(format)),
    ),
  );
}

/** @param {Event} event */
async function copyLink({ target }) {
  const copied = await navigator.clipboard?.writeText(location.href).then(
    () => true,
    () => false,
  );
  const told = copied ? "Link copied" : "Copy the address of this page";
  say(told);
  if (!(target instanceof HTMLElement)) return;
  target.textContent = told;
  setTimeout(() => target.replaceChildren("Copy link"), 2000);
}
