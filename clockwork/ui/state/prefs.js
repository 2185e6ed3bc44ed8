/** What the reader has chosen for this browser. Only the time zone is also in the URL: a pasted link shows the same times. */
import { createObservable, useObservable } from "./observable.js";
import { place, setParams } from "./url.js";

/** @type {(name: string, otherwise: string) => string} */
const stored = (name, otherwise) => {
  try {
    return localStorage.getItem(`clockwork-${name}`) ?? otherwise;
  } catch {
    return otherwise; // Storage is off: choices last as long as the page.
  }
};
/** @type {(name: string, value: string | null) => void} */
const keep = (name, value) => {
  try {
    if (value === null) localStorage.removeItem(`clockwork-${name}`);
    else localStorage.setItem(`clockwork-${name}`, value);
  } catch {
    // As above.
  }
};

export const browserZone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";

/** @param {string} name */
export function isZone(name) {
  try {
    new Intl.DateTimeFormat("en", { timeZone: name });
    return true;
  } catch {
    return false;
  }
}

const chosenZone = createObservable(stored("zone", ""));

/** The time zone that times are shown in. */
export function zone() {
  const named = place.get().params.get("tz") || chosenZone.get();
  return named && isZone(named) ? named : browserZone;
}

/** As `zone`, in a component. */
export function useZone() {
  useObservable(place);
  useObservable(chosenZone);
  return zone();
}

/** @param {string} name */
export function setZone(name) {
  keep("zone", name);
  chosenZone.set(name);
  setParams({ tz: name });
}

/** `both`, `absolute` or `relative`. */
export const timeForm = createObservable(stored("times", "both"));
/** @param {string} form */
export function setTimeForm(form) {
  keep("times", form);
  timeForm.set(form);
}

/** Whether single-letter shortcuts work (WCAG 2.1.4: they can be turned off). */
export const shortcutsOn = createObservable(stored("shortcuts", "on") === "on");
/** @param {boolean} on */
export function setShortcuts(on) {
  keep("shortcuts", on ? null : "off");
  shortcutsOn.set(on);
}

/** `light`, `dark` or `auto`. The cookie lets the server set it before the first paint. */
export const theme = createObservable(document.documentElement.dataset.theme ?? "auto");
/** @param {string} name */
export function setTheme(name) {
  document.cookie = `theme=${name === "auto" ? "; Max-Age=0" : `${name}; Max-Age=31536000`}; Path=/; SameSite=Lax`;
  document.documentElement.dataset.theme = name;
  theme.set(name);
}

/** Since when the reader has refreshes off, in the browser's epoch ms; null: they are live. */
export const refreshOffSince = createObservable(/** @type {number | null} */ (null));
export const toggleRefresh = () => refreshOffSince.set(refreshOffSince.get() === null ? Date.now() : null);

/** The client that was looked at last, for pages that want one. */
export const lastClient = createObservable(stored("client", ""));
/** @param {string | null} name */
export function rememberClient(name) {
  if (!name) return;
  keep("client", name);
  lastClient.set(name);
}
