/** A field for a client, with those that are known. */
import { html, useEffect } from "../lib.js";
import { ApiError, call } from "../state/api.js";
import { createObservable, useObservable } from "../state/observable.js";
import { me as observedMe, useMe } from "../state/session.js";
import { href } from "../state/url.js";
import { TextField } from "./form.js";

const AGAIN_MS = 60_000;
const known = createObservable(/** @type {string[]} */ ([]));
let readAtMs = -AGAIN_MS;

/** The names of the clients that were seen; read once a minute at most. */
export function useClients() {
  const who = useMe();
  useEffect(() => {
    if (who === null || !who.rights.includes("read") || performance.now() - readAtMs < AGAIN_MS) return;
    readAtMs = performance.now();
    call("GET", "/clients").then(
      (answer) => known.set(answer.data.clients.map((each) => each.clientId)),
      (error) => {
        // Names are a help and no more: a reader who knows one can type it.
        if (!(error instanceof ApiError)) throw error;
      },
    );
  }, [who]);
  const found = useObservable(known);
  const own = (who?.clients ?? []).filter((each) => !each.includes("*"));
  return [...new Set([...own, ...found])].sort();
}

observedMe.subscribe(() => {
  readAtMs = -AGAIN_MS;
});

/**
 * @param {{id: string, value: string, onInput: (value: string) => void, error?: string, required?: boolean}} props
 */
export function ClientField({ id, value, onInput, error, required = true }) {
  const names = useClients();
  return html`<div class="client-field"><${TextField} id=${id} label="Client" value=${value} onInput=${onInput} error=${error} required=${required} list=${`${id}-names`} />
    <datalist id=${`${id}-names`}>${names.map((each) => html`<option value=${each} />`)}</datalist></div>`;
}

const CHIPS_MAX = 30;

/**
 * Links to a page of each client that is known.
 * @param {{path: string, params?: Record<string, string | null>}} props
 */
export function ClientChips({ path, params = {} }) {
  const names = useClients();
  if (names.length === 0) return null;
  return html`<ul class="chips" aria-label="Known clients">${names.slice(0, CHIPS_MAX).map((each) => html`<li key=${each}><a class="chip" href=${href(path, { client: each, ...params })}>${each}</a></li>`)}</ul>
    ${names.length > CHIPS_MAX && html`<p class="muted">and ${names.length - CHIPS_MAX} more: type a name.</p>`}`;
}
