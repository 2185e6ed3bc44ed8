/** Parts of forms: fields with their errors at their place, buttons that say why they are off. */
import { html } from "../lib.js";
import { Plain } from "./text.js";

/**
 * @param {{id: string, label: any, error?: string, hint?: any, children: (attributes: any) => any}} props
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

/** A field for a line of text. */
export function TextField({ id, label, value, onInput, error, hint, ...more }) {
  return html`<${Field} id=${id} label=${label} error=${error} hint=${hint}>${(attributes) => html`<input ...${attributes} spellcheck=${false} autocomplete="off"
    ...${more} value=${value} onInput=${(event) => onInput(event.currentTarget.value)} />`}<//>`;
}

/** A field with choices. */
export function Choice({ id, label, value, onChange, options, error, hint }) {
  return html`<${Field} id=${id} label=${label} error=${error} hint=${hint}>${(attributes) => html`<select ...${attributes} value=${value} onChange=${(event) => onChange(event.currentTarget.value)}>
    ${options.map(([name, text]) => html`<option value=${name} selected=${name === value}>${text}</option>`)}</select>`}<//>`;
}

/**
 * A button for an action. Without the right it is there, off, and says why.
 * @param {{why?: string | null, onClick: (event: any) => void, children: any, className?: string, label?: string}} props
 */
export function Act({ why = null, onClick, children, className = "", label, ...more }) {
  return html`<button type="button" ...${more} class=${className} aria-disabled=${why ? "true" : undefined} title=${why ?? undefined} aria-label=${label}
    onClick=${(event) => (why ? undefined : onClick(event))}>${children}${why && html`<span class="sr-only">, off: ${why}</span>`}</button>`;
}

/** A text for a POSIX shell. */
export const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** The same request with curl. */
export function curlText(method, path, body, { base = window.location.origin, auth = document.documentElement.dataset.auth } = {}) {
  const lines = [`curl ${method === "GET" ? "" : `-X ${method} `}${quoted(`${base}${path}`)}`];
  if (auth !== "none") lines.push(`-H "authorization: Bearer $CLOCKWORK_KEY"`);
  if (body !== undefined) lines.push("-H 'content-type: application/json'", `-d ${quoted(body)}`);
  return lines.join(" \\\n  ");
}

/** Says something once, politely. */
export function say(text) {
  const place = document.getElementById("said");
  if (!place) return;
  place.textContent = "";
  setTimeout(() => (place.textContent = text), 50);
}
