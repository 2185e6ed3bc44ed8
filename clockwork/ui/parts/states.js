/** The states of a view: reading, nothing, an error, too many requests, lists off, stale. */
import { html, useEffect, useState } from "../lib.js";
import { bypassSharedAnswers } from "../state/api.js";
import { useNow } from "../state/clock.js";
import { useObservable } from "../state/observable.js";
import { MISSED_GONE, MISSED_STALE, mayRefresh, refreshBlockers } from "../state/poll.js";
import { refreshOffSince, useZone } from "../state/prefs.js";
import { lengthText, wallText } from "./time.js";
import { SafeText } from "./text.js";

/** @import { Hole } from "../lib.js" */
/** @import { ApiError } from "../state/api.js" */
/** @import { Resource } from "../state/poll.js" */

const SKELETON_AFTER_MS = 300;
const STILL_AFTER_MS = 2_000;

/**
 * A view with its states around it. What was read stays, greyed, when it cannot be read anew.
 * @param {{of: Resource, children: Hole, doing?: string, bound?: string, offHint?: Hole}} props
 *   `doing`: what takes its time, such as "reading"; `bound`: how much it may read, where that is known beforehand; `offHint`:
 *   what to do where the API answers 501
 */
export function View({ of, children, doing = "reading", bound = "", offHint }) {
  const { data, error } = of;
  return html`
    ${error && html`<${ErrorNotice} of=${of} offHint=${offHint} />`}
    ${data === null && !error && html`<${Skeleton} sinceMs=${of.sinceMs} doing=${doing} bound=${bound} />`}
    ${data !== null && html`<div class=${error ? "view was" : "view"}>${children}</div>`}
  `;
}

/** @param {{sinceMs: number, doing: string, bound: string}} props */
function Skeleton({ sinceMs, doing, bound }) {
  const [, again] = useState(0);
  useEffect(() => {
    const timers = [SKELETON_AFTER_MS, STILL_AFTER_MS].map((ms) =>
      setTimeout(() => again((count) => count + 1), Math.max(0, sinceMs + ms - Date.now()) + 10));
    return () => timers.forEach(clearTimeout);
  }, [sinceMs]);
  const waited = Date.now() - sinceMs;
  if (waited < SKELETON_AFTER_MS) return html`<div class="skeleton empty" aria-busy="true"></div>`;
  return html`<div class="skeleton" aria-busy="true">
    <p role="status">${waited < STILL_AFTER_MS ? `${doing}…` : `still ${doing}${bound && `, ${bound}`}…`}</p>
    ${[0, 1, 2, 3, 4].map(() => html`<div class="bar"></div>`)}
  </div>`;
}

/**
 * What went wrong, and what can be done about it.
 * @param {{of: Resource & {error: ApiError}, offHint?: Hole}} props
 */
export function ErrorNotice({ of, offHint }) {
  const { error, nextAtMs, asOf } = of;
  if (error.status === 401) return html`<div class="notice" role="status"><p>Log in to see this.</p></div>`;
  const kept = of.data !== null && html`<p>Below is what was there at <${At} ms=${asOf} />.</p>`;
  if (error.status === 501) {
    return html`<div class="notice" role="status"><h2>${error.problem.title}</h2><p>${error.problem.detail}</p>${offHint}</div>`;
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
    ${nextAtMs !== null && html`<p><${Countdown} untilMs=${nextAtMs} />.</p>`}
    <button type="button" onClick=${of.refresh} disabled=${of.loading}>${nextAtMs === null ? "Try again" : "Try now"}</button>
  </div>`;
}

/** The details of a problem. @param {{error: ApiError}} props */
export function Details({ error }) {
  return html`${error.detail && html`<p><${SafeText} text=${error.detail} /></p>`}
    ${error.problem.errors && html`<ul>${error.problem.errors.map((each) =>
      html`<li><code><${SafeText} text=${each.field} /></code>: <${SafeText} text=${each.message} /></li>`)}</ul>`}
    ${error.problem.errorId && html`<p>The service's log has more under <code>${error.problem.errorId}</code>.</p>`}`;
}

/** A timer to screen readers: they do not read out each second of it. @param {{untilMs: number}} props */
function Countdown({ untilMs }) {
  const [, again] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => again((count) => count + 1), 250);
    return () => clearInterval(timer);
  }, []);
  const left = Math.max(0, Math.ceil((untilMs - Date.now()) / 1_000));
  return html`<span role="timer">asks again ${left > 0 ? `in ${left} s` : "when you are done"}</span>`;
}

/** @param {{ms: number}} props */
const At = ({ ms }) => html`<span>${wallText(ms, useZone()).slice(11)}</span>`;

/**
 * "as of 12:03:04.120", what it cost, how often that lets it be refreshed, and whether it is still fresh.
 * @param {{of: Resource, readUnits?: number | null, live?: boolean, children?: Hole}} props
 */
export function AsOf({ of, readUnits, live = false, children }) {
  const zone = useZone();
  useNow(1_000);
  useObservable(refreshBlockers);
  const offSince = useObservable(refreshOffSince);
  if (of.asOf === null) return null;
  const stale = of.missed >= MISSED_STALE;
  const anew = () => {
    bypassSharedAnswers();
    of.refresh();
  };
  return html`<p class=${`as-of ${stale ? "stale" : ""}`}>
    ${stale && html`<strong>${of.missed >= MISSED_GONE ? "The node does not answer. " : "Out of date. "}</strong>`}
    as of <span title=${zone}>${wallText(of.asOf, zone).slice(11)}</span>
    ${live && offSince !== null && html`<span>, paused for ${lengthText(Date.now() - offSince)}</span>`}
    ${live && offSince === null && !mayRefresh() && html`<span>, paused while you work</span>`}
    ${live && of.slowedMs !== null
      ? html`<span title="What this view reads from the store, in read units">, refreshed every ${lengthText(of.slowedMs)}: it reads ${Math.round(of.units)} units</span>`
      : readUnits !== null && readUnits !== undefined && html`<span title="What this view read from the store, in read units">, ${readUnits} read units</span>`}
    ${children}
    ${of.error && of.nextAtMs !== null && html`, <${Countdown} untilMs=${of.nextAtMs} />`}${" "}
    <button type="button" class="small quiet" onClick=${anew} disabled=${of.loading}>${of.error ? "Try now" : "Refresh"}</button>
  </p>`;
}

/** Nothing to show: why, and the next step. @param {{title: Hole, children?: Hole}} props */
export function EmptyState({ title, children }) {
  return html`<div class="empty-state"><p><strong>${title}</strong></p>${children}</div>`;
}
