/** Parts of forms: fields with their errors at their place, buttons that say why they are off. */
import { html, useState } from "../lib.js";
import { ApiError } from "../state/api.js";
import { base } from "../state/url.js";
import { SafeText } from "./text.js";

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
    ${error && html`<p class="field-error" id=${`${id}-error`}><${SafeText} text=${error} /></p>`}
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
 * A button for an action. Without the right it is there, off, and says why (`offReason`; null: the button is on).
 * @param {{offReason?: string | null, onClick: (event: MouseEvent) => void, children: Hole, className?: string, label?: string,
 *          [attribute: string]: unknown}} props
 */
export function ActionButton({ offReason = null, onClick, children, className = "", label, ...more }) {
  return html`<button type="button" ...${more} class=${className} aria-disabled=${offReason ? "true" : undefined} title=${offReason ?? undefined} aria-label=${label}
    onClick=${(event) => (offReason ? undefined : onClick(event))}>${children}${offReason && html`<span class="sr-only">, off: ${offReason}</span>`}</button>`;
}

/** Puts the focus on the first field that is wrong: a button at the end of a form is far from it. */
export function focusWrong() {
  // Once the errors are drawn.
  setTimeout(() => {
    const wrong = /** @type {HTMLElement | null} */ (document.querySelector("main form [aria-invalid]"));
    const folded = wrong?.closest("details");
    if (folded) folded.open = true;
    wrong?.focus({ preventScroll: true });
    // With its label, which the bar above the page would hide: the browser has the field alone in view.
    (wrong?.closest(".field, fieldset") ?? wrong)?.scrollIntoView({ block: "nearest" });
  }, 50);
}

/**
 * The request of a form: `send` makes it, `busy` says that it is under way, and `error` is what the service finds wrong.
 * @param {() => void} [onError] called once the service has found something wrong
 */
export function useSending(onError) {
  const [error, setError] = useState(/** @type {ApiError | null} */ (null));
  const [busy, setBusy] = useState(false);
  const send = async (/** @type {() => Promise<void>} */ request) => {
    setBusy(true);
    setError(null);
    try {
      await request();
    } catch (wrong) {
      if (!(wrong instanceof ApiError)) throw wrong;
      setError(wrong);
      onError?.();
    } finally {
      setBusy(false);
    }
  };
  return { busy, error, setError, send };
}

/**
 * Forms that were left before they were sent, by what they are for. They are in the tab's memory alone: content of schedules
 * is not written to a disk.
 */
const drafts = /** @type {Map<string, any>} */ (new Map());
const DRAFTS_MAX = 10;

/**
 * The values of a form. They outlive it until they are sent, whatever ends it: the reader who looks something up on another
 * page finds them again, and so does one whose page had a defect.
 * Not chosen: a question on leaving, since it does not help after a defect.
 * @template T
 * @param {string} name what the form is for
 * @param {() => T} empty its first values
 */
export function useDraft(name, empty) {
  const [kept, setKept] = useState(() => drafts.has(name));
  const [begun, begin] = useState(0);
  const [form, fill] = useState(() => /** @type {T} */ (drafts.get(name) ?? empty()));
  const forget = () => {
    drafts.delete(name);
    setKept(false);
  };
  return {
    form,
    /** Whether the form was left before with these values. */
    kept,
    /** How often the reader has begun with an empty form. */
    begun,
    /** Changes what is not the reader's own, and so is not kept. */
    fill,
    /** Changes what the reader typed. @param {(before: T) => T} change */
    edit: (change) => fill((before) => {
      const after = change(before);
      drafts.delete(name);
      drafts.set(name, after);
      if (drafts.size > DRAFTS_MAX) drafts.delete(drafts.keys().next().value ?? "");
      return after;
    }),
    /** Forgets the values: they were sent. */
    forget,
    /** Forgets the values, and begins with an empty form. */
    startEmpty: () => {
      forget();
      fill(empty());
      begin((count) => count + 1);
    },
  };
}

/** Says that a form has what was typed before. @param {{of: {kept: boolean, startEmpty: () => void}}} props */
export const DraftNotice = ({ of }) => of.kept && html`<div class="notice" role="status"><p>What you had typed here is still there.</p>
  <button type="button" onClick=${of.startEmpty}>Start with an empty form</button></div>`;

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
export function announce(text) {
  const place = document.getElementById("announcement");
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
