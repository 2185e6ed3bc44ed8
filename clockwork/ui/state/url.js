/**
 * The address of the page as its state: page, filters, sort, time zone and open tab are in the URL and nowhere else, so that
 * back, reload and a pasted link give the same page. Links are ordinary anchors; one listener turns a plain click on them
 * into a change of the address.
 */
import { createObservable, useObservable } from "./observable.js";

export const base = document.documentElement.dataset.base ?? "";
const ROOT = `${base}/ui`;
/** Parameters that go along from page to page. */
const KEPT = ["tz"];

function read() {
  const path = window.location.pathname.startsWith(ROOT) ? window.location.pathname.slice(ROOT.length) : "/";
  return { path: path || "/", params: new URLSearchParams(window.location.search) };
}

export const place = createObservable(read());
/** Counts arrivals at another page, not changes of filters: the focus goes to the heading then. */
export const arrivals = createObservable(0);

export const usePlace = () => useObservable(place);

/**
 * The address of a page. Parameters that are empty are left out.
 * @param {string} path such as `/schedules`
 * @param {Record<string, string | number | null | undefined>} [params]
 */
export function href(path, params = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    if (value !== null && value !== undefined && value !== "") query.set(name, String(value));
  }
  for (const name of KEPT) {
    const value = place.get().params.get(name);
    if (value && !query.has(name)) query.set(name, value);
  }
  const text = query.toString();
  return `${ROOT}${path}${text ? `?${text}` : ""}`;
}

/** Goes to an address that `href` gave. @param {string} address */
export function go(address, { replace = false } = {}) {
  const before = place.get().path;
  if (replace) history.replaceState(history.state, "", address);
  else {
    history.replaceState({ scroll: window.scrollY }, "");
    history.pushState(null, "", address);
  }
  place.set(read());
  if (place.get().path !== before) arrive();
}

/**
 * Changes parameters of this page; an empty value takes one away.
 * @param {Record<string, string | number | null | undefined>} changes
 */
export function setParams(changes, { replace = true } = {}) {
  const query = new URLSearchParams(window.location.search);
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === undefined || value === "") query.delete(name);
    else query.set(name, String(value));
  }
  const text = query.toString();
  go(`${window.location.pathname}${text ? `?${text}` : ""}`, { replace });
}

function arrive() {
  window.scrollTo(0, 0);
  arrivals.update((count) => count + 1);
}

window.addEventListener("popstate", (event) => {
  const before = place.get().path;
  place.set(read());
  if (place.get().path !== before) arrivals.update((count) => count + 1);
  const top = event.state?.scroll ?? 0;
  // After the rows are there: what was read before is shown at once (poll.js keeps it).
  requestAnimationFrame(() => requestAnimationFrame(() => window.scrollTo(0, top)));
});

document.addEventListener("click", (event) => {
  if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) {
    return;
  }
  const link = event.target instanceof Element ? event.target.closest("a[href]") : null;
  if (!(link instanceof HTMLAnchorElement) || link.target || link.hasAttribute("download")) return;
  const url = new URL(link.href);
  if (url.origin !== window.location.origin || !url.pathname.startsWith(`${ROOT}/`)) return;
  if (url.hash && url.pathname === window.location.pathname && url.search === window.location.search) return;
  event.preventDefault();
  go(url.pathname + url.search);
});
