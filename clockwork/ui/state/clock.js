/** The time as the server has it: the browser's clock, put right by the `Date` of the answers. */
import { useEffect, useState } from "../lib.js";
import { createObservable } from "./observable.js";

/** Off by more than this, and the reader is told. */
export const SKEW_MS_MAX = 5_000;

/** Milliseconds to add to the browser's clock. */
export const skew = createObservable(0);
let known = false;

/**
 * Learns from an answer. `Date` has whole seconds, so an answer only says that the difference lies within a range; what lies
 * in it already is kept, so that the time does not jump from answer to answer.
 * @param {string | null} date the header
 * @param {number} sentMs when the request was sent, by the browser's clock
 */
export function learn(date, sentMs) {
  const at = date === null ? NaN : Date.parse(date);
  if (Number.isNaN(at)) return;
  const low = at - Date.now();
  const high = at + 1_000 - sentMs;
  const now = skew.get();
  if (known && now >= low && now <= high) return;
  const middle = Math.round((low + high) / 2);
  // A browser that is right within a second is believed: it knows milliseconds.
  skew.set(low <= 0 && high >= 0 ? 0 : middle);
  known = true;
}

/** In epoch ms. */
export const now = () => Date.now() + skew.get();

/** The time, again every `everyMs` while the tab is seen. */
export function useNow(everyMs = 1_000) {
  const [at, set] = useState(now);
  useEffect(() => {
    const timer = setInterval(() => document.hidden || set(now()), everyMs);
    return () => clearInterval(timer);
  }, [everyMs]);
  return at;
}
