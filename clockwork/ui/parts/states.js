/** The states of a view: reading, nothing, an error, too many requests, lists off, stale. */
import { html, useEffect, useState } from "../lib.js";
import { useNow } from "../state/clock.js";
import { MISSED_GONE, MISSED_STALE, held, mayChange } from "../state/poll.js";
import { pausedSince, useZone } from "../state/prefs.js";
import { useStore } from "../state/store.js";
import { lengthText, wallText } from "./time.js";
import { Plain } from "./text.js";

/** @import { Hole } from "../lib.js" */
/** @import { ApiError } from "../state/api.js" */
/** @import { Resource } from "../state/poll.js" */

const OUTLINE_AFTER_MS = 300;
const STILL_AFTER_MS = 2_000;

/**
 * A view with its states around it. What was read stays, greyed, when it cannot be read anew.
 * @param {{of: Resource, children: Hole, doing?: string, lookedAt?: number, off?: Hole}} props
 *   `doing`: what takes its time, such as "reading"; `off`: what to do where the API answers 501
 */
export function View({ of, children, doing = "reading", lookedAt = 0, off }) {
  const { data, error } = of;
  return html`
    ${error && html`<${Wrong} of=${of} off=${off} />`}
    ${data === null && !error && html`<${Outline} sinceMs=${of.sinceMs} doing=${doing} lookedAt=${lookedAt} />`}
    ${data !== null && html`<div class=${error ? "view was" : "view"}>${children}</div>`}
  `;
}

/** @param {{sinceMs: number, doing: string, lookedAt: number}} props */
function Outline({ sinceMs, doing, lookedAt }) {
  const [, again] = useState(0);
  useEffect(() => {
    const timers = [OUTLINE_AFTER_MS, STILL_AFTER_MS].map((ms) =>
      setTimeout(() => again((count) => count + 1), Math.max(0, sinceMs + ms - Date.now()) + 10));
    return () => timers.forEach(clearTimeout);
  }, [sinceMs]);
  const waited = Date.now() - sinceMs;
  if (waited < OUTLINE_AFTER_MS) return html`<div class="outline empty" aria-busy="true"></div>`;
  return html`<div class="outline" aria-busy="true">
    <p role="status">${waited < STILL_AFTER_MS ? `${doing}…` : `still ${doing}${lookedAt ? `, ${lookedAt.toLocaleString("en")} looked at` : ""}…`}</p>
    ${[0, 1, 2, 3, 4].map(() => html`<div class="bar"></div>`)}
  </div>`;
}

/**
 * What went wrong, and what can be done about it.
 * @param {{of: Resource & {error: ApiError}, off?: Hole}} props
 */
export function Wrong({ of, off }) {
  const { error, retryAtMs, asOf } = of;
  if (error.status === 401) return html`<div class="notice" role="status"><p>Log in to see this.</p></div>`;
  const kept = of.data !== null && html`<p>Below is what was there at <${At} ms=${asOf} />.</p>`;
  if (error.status === 501) {
    return html`<div class="notice" role="status"><h2>${error.problem.title}</h2><p>${error.problem.detail}</p>${off}</div>`;
  }
  if (error.status === 403) {
    return html`<div class="notice bad" role="alert"><h2>You may not see this</h2><${Details} error=${error} />${kept}</div>`;
  }
  // A call that is not there at all, unlike a schedule that is not: the page is newer than the node, or the other way round.
  if (error.status === 404 && error.kind === "not-found") {
    return html`<div class="notice" role="status"><h2>Not on this node</h2><p>The node that answers has another version than this page, and does not know this call. A new release may be under way.</p>${kept}
      <button type="button" onClick=${of.refresh} disabled=${of.loading}>Try again</button></div>`;
  }
  if (error.status === 404) {
    return html`<div class="notice" role="alert"><h2>${error.problem.title}</h2><${Details} error=${error} />${kept}</div>`;
  }
  return html`<div class="notice bad" role="alert" data-missed=${of.missed}>
    <h2>${error.problem.title}</h2>
    <${Details} error=${error} />
    ${kept}
    ${retryAtMs !== null && html`<${Countdown} untilMs=${retryAtMs} />`}
    <button type="button" onClick=${of.refresh} disabled=${of.loading}>Try again</button>
  </div>`;
}

/** The details of a problem. @param {{error: ApiError}} props */
export function Details({ error }) {
  return html`<p><${Plain} text=${error.problem.detail ?? ""} /></p>
    ${error.problem.errors && html`<ul>${error.problem.errors.map((each) =>
      html`<li><code><${Plain} text=${each.field} /></code>: <${Plain} text=${each.message} /></li>`)}</ul>`}
    ${error.problem.errorId && html`<p>The service's log has more under <code>${error.problem.errorId}</code>.</p>`}`;
}

/** @param {{untilMs: number}} props */
function Countdown({ untilMs }) {
  const [, again] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => again((count) => count + 1), 250);
    return () => clearInterval(timer);
  }, []);
  const left = Math.max(0, Math.ceil((untilMs - Date.now()) / 1_000));
  return html`<p>Asks again by itself in ${left} s.</p>`;
}

/** @param {{ms: number}} props */
const At = ({ ms }) => html`<span>${wallText(ms, useZone()).slice(11)}</span>`;

/**
 * "as of 12:03:04.120", what it cost, and whether it is still fresh.
 * @param {{of: Resource, readUnits?: number | null, live?: boolean, children?: Hole}} props
 */
export function AsOf({ of, readUnits, live = false, children }) {
  const zone = useZone();
  useNow(1_000);
  useStore(held);
  const paused = useStore(pausedSince);
  if (of.asOf === null) return null;
  const stale = of.missed >= MISSED_STALE;
  return html`<p class=${`as-of ${stale ? "stale" : ""}`}>
    ${stale && html`<strong>${of.missed >= MISSED_GONE ? "The node does not answer. " : "Out of date. "}</strong>`}
    as of <span title=${zone}>${wallText(of.asOf, zone).slice(11)}</span>
    ${live && paused !== null && html`<span>, paused for ${lengthText(Date.now() - paused)}</span>`}
    ${live && paused === null && !mayChange() && html`<span>, held while you work</span>`}
    ${readUnits !== null && readUnits !== undefined && html`<span title="What this view read from the store, in read units">, ${readUnits} read units</span>`}
    ${children}${" "}
    <button type="button" class="small quiet" onClick=${of.refresh} disabled=${of.loading}>Refresh</button>
  </p>`;
}

/** Nothing to show: why, and the next step. @param {{title: Hole, children?: Hole}} props */
export function Nothing({ title, children }) {
  return html`<div class="nothing"><p><strong>${title}</strong></p>${children}</div>`;
}
