/**
 * What a view reads, once or again and again.
 *
 * Two promises to the reader: nothing is asked while the tab is hidden, and nothing changes under the hand, i.e. while
 * something is selected, a dialog is open or text is marked. And two to the service: what costs much is read less often, and
 * errors make the intervals longer, up to a minute. Only a node that does not answer is asked every ten seconds, so that the page
 * is back soon after the node; and as soon as any call is answered, every view that waits for the node asks at once.
 */
import { useCallback, useEffect, useRef, useState } from "../lib.js";
import { ApiError, isAway, nodeReachable, unitsOf } from "./api.js";
import { now } from "./clock.js";
import { createObservable } from "./observable.js";
import { refreshOffSince } from "./prefs.js";
import { loginWanted, logins } from "./session.js";

/** Between two tries of a view that fails. */
const DELAY_MS_MAX = 60_000;
/** The same while the node does not answer. */
const AWAY_DELAY_MS_MAX = 10_000;
/** How often it is looked whether a read that waits for the reader may go on. */
const HELD_MS = 1_000;
/**
 * Read units a second of one view that refreshes by itself: a tenth of what a process has for all by default
 * (`CLOCKWORK_UI_READ_UNITS_PER_SECOND`), so that a page which is left open keeps others from nothing.
 */
const UNITS_PER_S_MAX = 5;
/** Refreshes that may fail before a view is called stale, and before the node is said not to answer. */
export const MISSED_STALE = 3;
export const MISSED_GONE = 5;
const KEPT_MAX = 30;

/** A token of each selection and dialog: while there is one, nothing may change. */
const blockers = new Set();
/** How many these are. */
export const refreshBlockers = createObservable(0);

/** Holds refreshes back until the function that is returned is called. */
export function blockRefresh() {
  const token = {};
  blockers.add(token);
  refreshBlockers.set(blockers.size);
  return () => {
    blockers.delete(token);
    refreshBlockers.set(blockers.size);
  };
}

/** Holds refreshes back while `active`. @param {boolean} active */
export function useBlockRefresh(active) {
  useEffect(() => (active ? blockRefresh() : undefined), [active]);
}

const textIsMarked = () => {
  const marked = document.getSelection();
  return marked !== null && !marked.isCollapsed && String(marked) !== "";
};

export const mayRefresh = () =>
  !document.hidden && blockers.size === 0 && refreshOffSince.get() === null && !loginWanted.get() && !textIsMarked();

/** What was read last, by key: back shows it at once. */
/** @type {Map<string, {data: any, asOf: number | null}>} */
const kept = new Map();

/** @param {string} key @param {{data: any, asOf: number | null}} value */
function keepLast(key, value) {
  kept.delete(key);
  kept.set(key, value);
  if (kept.size > KEPT_MAX) kept.delete(/** @type {string} */ (kept.keys().next().value));
}

/**
 * @template [T=any]
 * @typedef {object} Reading
 * @property {string | null} key
 * @property {T | null} data what was read, or null
 * @property {ApiError | null} error of the last try
 * @property {number | null} asOf when `data` was read, in epoch ms of the server
 * @property {boolean} loading a request is under way
 * @property {number} missed refreshes that failed one after the other
 * @property {number | null} nextAtMs when it is asked again by itself, in the browser's epoch ms; null: the reader says when
 * @property {number} units what it cost to read `data`, in read units
 * @property {AbortController | null} abort ends the request that is under way
 * @property {number | undefined} timer
 * @property {number} sinceMs when the view was opened, in the browser's epoch ms
 */

/**
 * @template [T=any]
 * @typedef {Reading<T> & {refresh: () => Promise<void>, edit: (change: (data: T) => T) => void, slowedMs: number | null}} Resource
 *   `edit`: changes what is shown; `slowedMs`: the interval, if the cost of a read makes it longer than `everyMs`; otherwise null
 */

/** The views of the page. */
const open = /** @type {Set<Reading>} */ (new Set());
/** What keeps a view of the page from being read: no answer, a limit, or nothing. */
export const trouble = createObservable(/** @type {"away" | "limit" | null} */ (null));
/** Sets `trouble` from the errors of the open views. */
function updateTrouble() {
  const statuses = [...open].map((each) => each.error?.status ?? 200);
  trouble.set(statuses.some((each) => isAway(each) || each === 500) ? "away" : statuses.includes(429) ? "limit" : null);
}

/** Whether a view may be asked for by itself: what shows nothing yet moves nothing. @param {Reading} reading */
const mayAsk = (reading) => (reading.data === null ? !document.hidden && !loginWanted.get() : mayRefresh());

/** The shortest interval that the cost of a read allows. @param {number} units */
const minIntervalMs = (units) => Math.ceil(units / UNITS_PER_S_MAX) * 1_000;

/**
 * How long a view waits before it asks again by itself; null: until the reader says so.
 * @param {Reading} reading @param {number} everyMs
 */
function pollDelayMs({ error, missed, units }, everyMs) {
  const ordinary = Math.max(everyMs, minIntervalMs(units));
  if (error === null) return everyMs === 0 ? null : ordinary;
  // Once as the service says; after that longer and longer, or when the reader says.
  if (missed === 1 && error.retryAfterS !== null) return error.retryAfterS * 1_000;
  const times = 2 ** Math.min(missed, 6);
  if (isAway(error.status)) return Math.min(AWAY_DELAY_MS_MAX, 1_000 * times);
  return everyMs === 0 ? null : Math.max(ordinary, Math.min(DELAY_MS_MAX, everyMs * times));
}

/**
 * Reads something, and reads it again every `everyMs` (0: never).
 * @template T
 * @param {string | null} key what is read: another key is another view; null reads nothing
 * @param {(signal: AbortSignal, before: T | null) => Promise<T>} load
 * @param {{everyMs?: number}} [options]
 * @returns {Resource<T>}
 */
export function useResource(key, load, { everyMs = 0 } = {}) {
  const [, again] = useState(0);
  // null before the first rendering alone.
  const view = useRef(/** @type {Reading<T>} */ (/** @type {unknown} */ (null)));
  if (view.current === null || view.current.key !== key) {
    view.current?.abort?.abort();
    const last = key === null ? undefined : kept.get(key);
    view.current = {
      key, data: last?.data ?? null, asOf: last?.asOf ?? null, error: null, loading: false, missed: 0, nextAtMs: null,
      units: 0, abort: null, timer: undefined, sinceMs: Date.now(),
    };
  }
  const reader = useRef(load);
  reader.current = load;
  const interval = useRef(everyMs);
  interval.current = everyMs;

  const refresh = useCallback(async () => {
    const mine = view.current;
    if (mine.key === null) return;
    clearTimeout(mine.timer);
    mine.abort?.abort();
    const abort = (mine.abort = new AbortController());
    mine.loading = true;
    mine.nextAtMs = null;
    again((count) => count + 1);
    try {
      const data = await reader.current(abort.signal, mine.data);
      if (abort.signal.aborted) return;
      // A shared answer may be some seconds old: a document that has its time says it itself.
      const asOf = /** @type {{asOf?: number} | null} */ (data)?.asOf ?? now();
      Object.assign(mine, { data, asOf, error: null, missed: 0, units: unitsOf(abort.signal) });
      keepLast(mine.key, { data, asOf: mine.asOf });
    } catch (error) {
      if (abort.signal.aborted) return;
      if (!(error instanceof ApiError)) throw error;
      mine.error = error;
      mine.missed += 1;
    } finally {
      if (!abort.signal.aborted) {
        mine.loading = false;
        mine.abort = null;
        if (view.current === mine) plan(mine);
        updateTrouble();
        again((count) => count + 1);
      }
    }
  }, []);

  const plan = useCallback((/** @type {Reading<T>} */ mine) => {
    clearTimeout(mine.timer);
    const ms = pollDelayMs(mine, interval.current);
    mine.nextAtMs = ms === null ? null : Date.now() + ms;
    const ask = () => {
      if (mayAsk(mine)) refresh();
      else mine.timer = setTimeout(ask, HELD_MS);
    };
    if (ms !== null) mine.timer = setTimeout(ask, ms);
  }, []);

  useEffect(() => {
    const mine = view.current;
    open.add(mine);
    refresh();
    const login = logins.subscribe(() => refresh());
    const isFailing = () => mine.error !== null && isAway(mine.error.status) && !mine.loading;
    // What costs much is not read before its time because the reader is back at the tab.
    const isCheap = () => interval.current > 0 && minIntervalMs(mine.units) <= interval.current;
    const ask = () => mayAsk(mine) && (isFailing() || isCheap()) && refresh();
    // A view whose call alone is never answered is asked as often as the others of the page, then.
    const end = nodeReachable.subscribe(() => nodeReachable.get() && isFailing() && mayAsk(mine) && refresh());
    document.addEventListener("visibilitychange", ask);
    window.addEventListener("online", ask);
    return () => {
      login();
      end();
      document.removeEventListener("visibilitychange", ask);
      window.removeEventListener("online", ask);
      clearTimeout(mine.timer);
      mine.abort?.abort();
      open.delete(mine);
      updateTrouble();
    };
  }, [key]);
  useEffect(() => {
    if (!view.current.loading && view.current.key !== null) plan(view.current);
  }, [everyMs]);

  const mine = view.current;
  const edit = useCallback((/** @type {(data: T) => T} */ change) => {
    view.current.data = change(/** @type {T} */ (view.current.data));
    keepLast(/** @type {string} */ (view.current.key), { data: view.current.data, asOf: view.current.asOf });
    again((count) => count + 1);
  }, []);
  const slowedMs = everyMs > 0 && minIntervalMs(mine.units) > everyMs ? minIntervalMs(mine.units) : null;
  return { ...mine, refresh, edit, slowedMs };
}
