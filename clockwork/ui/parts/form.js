/** Parts of forms: fields with their errors at their place, buttons that say why they are off. */
import { html } from "../lib.js";
import { base } from "../state/url.js";
import { Plain } from "./text.js";

/** @import { Hole } from "../lib.js" */

/** Characters of a reason: so many fit into its 1,024 bytes, whatever they are. */
export const REASON_CHARS_MAX = 256;

/**
 * @param {{id: string, label: Hole, error?: string, hint?: Hole, children: (attributes: object) => Hole}} props
 */
export function Field({ id, label, error, hint, children }) {
  const said = [error && `${id}-error`, hint && `${id}-hint`].filter(Boolean).join(" ");
  return html`<div class=${`field ${error ? "wrong" : ""}`}>
    <label for=${id}>${label}</label>
    ${children({ id, name: id, "aria-describedby": said || undefined, "aria-invalid": error ? "true" : undefined })}
    ${hint && html`<p class="hint" id=${`${id}-hint`}>${hint}</p>`}
    ${error && html`<p class="field-error" id=${`${id}-error`}><${Plain} text=${error} /></p>`}
  </div>`;
}

/**
 * A field for a line of text; other attributes are the input's own.
 * @param {{id: string, label: Hole, value: string, onInput: (value: string) => void, error?: string, hint?: Hole,
 *          [attribute: string]: unknown}} props
 */
export function TextField({ id, label, value, onInput, error, hint, ...more }) {
  return html`<${Field} id=${id} label=${label} error=${error} hint=${hint}>${(attributes) => html`<input ...${attributes} spellcheck=${false} autocomplete="off"
    ...${more} value=${value} onInput=${(event) => onInput(event.currentTarget.value)} />`}<//>`;
}

/**
 * A field with choices.
 * @param {{id: string, label: Hole, value: string, onChange: (value: string) => void, options: string[][], error?: string,
 *          hint?: Hole}} props `options`: value and text of each
 */
export function Choice({ id, label, value, onChange, options, error, hint }) {
  return html`<${Field} id=${id} label=${label} error=${error} hint=${hint}>${(attributes) => html`<select ...${attributes} value=${value} onChange=${(event) => onChange(event.currentTarget.value)}>
    ${options.map(([name, text]) => html`<option value=${name} selected=${name === value}>${text}</option>`)}</select>`}<//>`;
}

/**
 * A button for an action. Without the right it is there, off, and says why.
 * @param {{why?: string | null, onClick: (event: MouseEvent) => void, children: Hole, className?: string, label?: string,
 *          [attribute: string]: unknown}} props
 */
export function Act({ why = null, onClick, children, className = "", label, ...more }) {
  return html`<button type="button" ...${more} class=${className} aria-disabled=${why ? "true" : undefined} title=${why ?? undefined} aria-label=${label}
    onClick=${(event) => (why ? undefined : onClick(event))}>${children}${why && html`<span class="sr-only">, off: ${why}</span>`}</button>`;
}

/** Puts the focus on the first field that is wrong: a button at the end of a form is far from it. */
export function focusWrong() {
  // Once the errors are drawn.
  setTimeout(() => /** @type {HTMLElement | null} */ (document.querySelector("main form [aria-invalid]"))?.focus(), 50);
}

/** A text for a POSIX shell. @param {string} text */
export const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** The same request with curl. @param {string} method @param {string} path @param {string} [body] */
export function curlText(method, path, body, { at = `${window.location.origin}${base}`, auth = document.documentElement.dataset.auth } = {}) {
  const lines = [`curl ${method === "GET" ? "" : `-X ${method} `}${quoted(`${at}${path}`)}`];
  if (auth !== "none") lines.push(`-H "authorization: Bearer $CLOCKWORK_KEY"`);
  if (body !== undefined) lines.push("-H 'content-type: application/json'", `-d ${quoted(body)}`);
  return lines.join(" \\\n  ");
}

/** Says something once, politely. @param {string} text */
export function say(text) {
  const place = document.getElementById("said");
  if (!place) return;
  place.textContent = "";
  setTimeout(() => (place.textContent = text), 50);
}

/** Headers from lines; null if a line is none. @param {string} text */
export function headersOf(text) {
  const found = /** @type {Record<string, string>} */ (Object.create(null)); // a header may be named __proto__
  for (const line of text.split("\n")) {
    if (!line.trim()) continue;
    const at = line.indexOf(":");
    if (at <= 0) return null;
    found[line.slice(0, at).trim()] = line.slice(at + 1).trim();
  }
  return found;
}

/** Lines from headers. @param {Record<string, string | null>} [headers] */
export const headersText = (headers = {}) => Object.entries(headers).map(([name, value]) => `${name}: ${value}`).join("\n");
