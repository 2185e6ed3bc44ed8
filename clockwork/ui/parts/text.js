/**
 * Text that comes from strangers: keys, headers, payloads, reasons. It is always a text node. Control characters and those
 * that turn the direction of text are shown by their code points, because they hide or reorder what stands beside them.
 */
import { html, useEffect, useRef, useState } from "../lib.js";

// Controls but tab, newline and return; zero-width and directional marks; line separators; lone surrogates.
const HIDDEN =
  /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;
const CONTROL_IN_LINE = /[\t\n\r]/g;

/** @param {string} char */
const codeOf = (char) => `U+${char.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}`;

/** Splits text into plain parts and characters that are not to be seen. @param {string} text */
export function partsOf(text, { lines = false } = {}) {
  /** @type {(string | {code: string})[]} */
  const parts = [];
  let from = 0;
  const pattern = lines ? HIDDEN : new RegExp(`${HIDDEN.source}|${CONTROL_IN_LINE.source}`, "g");
  for (const found of text.matchAll(pattern)) {
    if (found.index > from) parts.push(text.slice(from, found.index));
    parts.push({ code: codeOf(found[0]) });
    from = found.index + found[0].length;
  }
  if (from < text.length) parts.push(text.slice(from));
  return parts;
}

/** Text of a stranger, in one line unless `lines`. @param {{text: unknown, lines?: boolean}} props */
export function SafeText({ text, lines = false }) {
  const parts = partsOf(String(text), { lines });
  return html`<bdi>${parts.map((part) =>
    typeof part === "string" ? part : html`<span class="hidden-char" title="a character that cannot be seen">${part.code}</span>`
  )}</bdi>`;
}

/**
 * Puts a text into the clipboard, and says so where the button is.
 * @param {{text: string, label?: string, small?: boolean}} props
 */
export function Copy({ text, label = "Copy", small = true }) {
  const [done, setDone] = useState(false);
  const timer = useRef(0);
  useEffect(() => () => clearTimeout(timer.current), []);
  const copy = async () => {
    await writeClipboard(text);
    setDone(true);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => setDone(false), 2_000);
  };
  return html`<button type="button" class=${small ? "small quiet" : ""} onClick=${copy}>${done ? "Copied" : label}</button>`;
}

/** @param {string} text */
async function writeClipboard(text) {
  if (navigator.clipboard?.writeText) {
    await navigator.clipboard.writeText(text);
    return;
  }
  // Without HTTPS there is no clipboard but for what is marked.
  const field = document.createElement("textarea");
  field.value = text;
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}

/** @type {(count: number, one: string, many?: string) => string} */
export const plural = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

/** @type {Record<string, string>} */
export const STATUS_MARKS = {
  pending: "○", delivered: "●", cancelled: "⊘", failed: "▲", superseded: "↷",
  active: "●", paused: "‖", ended: "■", deleted: "⊘",
  armed: "○", running: "◐", completed: "●", timed_out: "▲", skipped: "⊘",
};

/** A state: its mark and its word; the colour comes last. @param {{value: string}} props */
export function Status({ value }) {
  return html`<span class=${`status status-${value}`}><span aria-hidden="true">${STATUS_MARKS[value] ?? "•"}</span>
    ${" "}${String(value).replaceAll("_", " ")}</span>`;
}
