/** A value that parts of the page watch. */
import { useEffect, useState } from "../lib.js";

/**
 * @template T
 * @typedef {{get: () => T, set: (value: T) => void, update: (change: (value: T) => T) => void,
 *            subscribe: (watcher: () => void) => () => void}} Observable
 */

/**
 * @template T
 * @param {T} value
 * @returns {Observable<T>}
 */
export function createObservable(value) {
  /** @type {Set<() => void>} */
  const watchers = new Set();
  /** @type {Observable<T>} */
  const observable = {
    get: () => value,
    set(next) {
      if (Object.is(next, value)) return;
      value = next;
      for (const watcher of [...watchers]) watcher();
    },
    update: (change) => observable.set(change(value)),
    subscribe(watcher) {
      watchers.add(watcher);
      return () => watchers.delete(watcher);
    },
  };
  return observable;
}

/**
 * The present value of an observable; the component is rendered again when it changes.
 * @template T
 * @param {Observable<T>} observable
 */
export function useObservable(observable) {
  const [, again] = useState(0);
  useEffect(() => {
    const seen = observable.get();
    const changed = () => again((count) => count + 1);
    const end = observable.subscribe(changed);
    // It may have changed between the rendering and now.
    if (!Object.is(seen, observable.get())) changed();
    return end;
  }, [observable]);
  return observable.get();
}
