/** A value that parts of the page watch. */
import { useEffect, useState } from "../lib.js";

/**
 * @template T
 * @typedef {{get: () => T, set: (value: T) => void, update: (change: (value: T) => T) => void,
 *            subscribe: (told: () => void) => () => void}} Store
 */

/**
 * @template T
 * @param {T} value
 * @returns {Store<T>}
 */
export function createStore(value) {
  /** @type {Set<() => void>} */
  const watchers = new Set();
  /** @type {Store<T>} */
  const store = {
    get: () => value,
    set(next) {
      if (Object.is(next, value)) return;
      value = next;
      for (const told of [...watchers]) told();
    },
    update: (change) => store.set(change(value)),
    subscribe(told) {
      watchers.add(told);
      return () => watchers.delete(told);
    },
  };
  return store;
}

/**
 * The present value of a store; the component is rendered again when it changes.
 * @template T
 * @param {Store<T>} store
 */
export function useStore(store) {
  const [, again] = useState(0);
  useEffect(() => {
    const seen = store.get();
    const told = () => again((count) => count + 1);
    const end = store.subscribe(told);
    // It may have changed between the rendering and now.
    if (!Object.is(seen, store.get())) told();
    return end;
  }, [store]);
  return store.get();
}
