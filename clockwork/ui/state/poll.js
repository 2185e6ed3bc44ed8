/**
 * What a view reads, once or again and again.
 *
 * Two promises to the reader: nothing is asked while the tab is hidden, and nothing changes under the hand, i.e. while
 * something is selected, a dialog is open or text is marked. Errors make the pauses longer, up to a minute.
 */
import { useCallback, useEffect, useRef, useState } from "../lib.js";
import { ApiError } from "./api.js";
import { now } from "./clock.js";
import { pausedSince } from "./prefs.js";
import { loginWanted, logins } from "./session.js";
import { createStore } from "./store.js";

export const PAUSE_MS_MAX = 60_000;
/** Refreshes that may fail before a view is called stale, and before the node is said not to answer. */
export const MISSED_STALE = 3;
export const MISSED_GONE = 5;
const KEPT_MAX = 30;

/** Reasons why nothing may change now: selections and dialogs. */
const holds = new Set();
export const held = createStore(0);

/** Holds updates back until the function that is returned is called. */
export function hold() {
  const token = {};
  holds.add(token);
  held.set(holds.size);
  return () => {
    holds.delete(token);
    held.set(holds.size);
  };
}

/** Holds updates back while `active`. @param {boolean} active */
export function useHold(active) {
  useEffect(() => (active ? hold() : undefined), [active]);
}

const textIsMarked = () => {
  const marked = document.getSelection();
  return marked !== null && !marked.isCollapsed && String(marked) !== "";
};

export const mayChange = () =>
  !document.hidden && holds.size === 0 && pausedSince.get() === null && !loginWanted.get() && !textIsMarked();

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
 * @property {number | null} retryAtMs when it is asked again by itself, in the browser's epoch ms
 * @property {boolean} retried it was asked again by itself
 * @property {AbortController | null} abort ends the request that is under way
 * @property {number | undefined} timer
 * @property {number} sinceMs when the view was opened, in the browser's epoch ms
 */

/**
 * @template [T=any]
 * @typedef {Reading<T> & {refresh: () => Promise<void>, edit: (change: (data: T) => T) => void}} Resource
 *   `edit`: changes what is shown
 */

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
      key, data: last?.data ?? null, asOf: last?.asOf ?? null, error: null, loading: false, missed: 0, retryAtMs: null,
      retried: false, abort: null, timer: undefined, sinceMs: Date.now(),
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
    mine.retryAtMs = null;
    again((count) => count + 1);
    try {
      const data = await reader.current(abort.signal, mine.data);
      if (abort.signal.aborted) return;
      Object.assign(mine, { data, asOf: now(), error: null, missed: 0, retried: false });
      keepLast(mine.key, { data, asOf: mine.asOf });
    } catch (error) {
      if (abort.signal.aborted) return;
      if (!(error instanceof ApiError)) throw error;
      mine.error = error;
      mine.missed += 1;
      if ((error.status === 429 || error.status === 503) && !mine.retried) {
        // Asked again once by itself; after that the reader says when.
        mine.retried = true;
        mine.retryAtMs = Date.now() + (error.retryAfterS ?? 1) * 1_000;
      }
    } finally {
      if (!abort.signal.aborted) {
        mine.loading = false;
        mine.abort = null;
        if (view.current === mine) plan(mine);
        again((count) => count + 1);
      }
    }
  }, []);

  const plan = useCallback((/** @type {Reading<T>} */ mine) => {
    clearTimeout(mine.timer);
    const every = interval.current;
    if (mine.retryAtMs === null && every === 0) return;
    const pauseMs = mine.retryAtMs !== null
      ? Math.max(0, mine.retryAtMs - Date.now())
      : Math.max(every, Math.min(PAUSE_MS_MAX, every * 2 ** Math.min(mine.missed, 6)));
    mine.timer = setTimeout(() => (mine.retryAtMs !== null || mayChange() ? refresh() : plan(mine)), pauseMs);
  }, []);

  useEffect(() => {
    const mine = view.current;
    refresh();
    const login = logins.subscribe(() => refresh());
    const seen = () => !document.hidden && interval.current > 0 && mayChange() && refresh();
    document.addEventListener("visibilitychange", seen);
    return () => {
      login();
      document.removeEventListener("visibilitychange", seen);
      clearTimeout(mine.timer);
      mine.abort?.abort();
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
  return { ...mine, refresh, edit };
}
