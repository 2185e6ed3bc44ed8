/** Who the reader is, and what they may do: `GET /me`. */
import { ApiError, call, forget, nodeReachable, onLoginNeeded } from "./api.js";
import { createObservable, useObservable } from "./observable.js";
import { base } from "./url.js";

/** null: not known yet. */
export const me = createObservable(/** @type {Api.MeDocument | null} */ (null));
/** True while a login lies over the page. */
export const loginWanted = createObservable(false);
/** Counts logins: what is shown is read again after each. */
export const logins = createObservable(0);
/** Why the node could not be asked who the reader is. */
export const meError = createObservable(/** @type {ApiError | null} */ (null));

onLoginNeeded(() => loginWanted.set(true));
nodeReachable.subscribe(() => nodeReachable.get() && meError.get() && loadMe());

export async function loadMe() {
  try {
    become((await call("GET", "/me")).data);
    meError.set(null);
    loginWanted.set(false);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.status !== 401) meError.set(error);
  }
}

/**
 * Takes over who the reader is. The page is loaded anew for another one: it holds what the one before has read.
 * @param {Api.MeDocument} found
 */
function become(found) {
  const before = me.get();
  if (before !== null && (before.name !== found.name || before.redacted !== found.redacted)) window.location.reload();
  // The same again changes nothing on the page.
  if (JSON.stringify(found) !== JSON.stringify(before)) me.set(found);
}

/** Logs in with a key. Raises: ApiError. @param {string} key */
export async function login(key) {
  const found = (await call("POST", "/session", { body: { key } })).data;
  forget();
  become(found);
  meError.set(null);
  loginWanted.set(false);
  logins.update((count) => count + 1);
}

/** Logs out, and leaves the page with all that it holds. */
export async function logout() {
  await call("DELETE", "/session");
  window.location.replace(`${base}/ui/`);
}

/** @param {string[]} patterns @param {string} name */
function covers(patterns, name) {
  return patterns.some((each) => each === name || (each.endsWith("*") && name.startsWith(each.slice(0, -1))));
}

/**
 * Why the reader may not do something, in words; null if they may. The service decides; this only says it beforehand.
 * @param {Api.MeDocument | null} who
 * @param {string | string[]} rights one of these is enough
 * @param {{client?: string, topic?: string}} [scope]
 */
export function whyNotAllowed(who, rights, { client, topic } = {}) {
  if (who === null) return "not logged in";
  const wanted = [rights].flat();
  if (!wanted.some((each) => who.rights.includes(each))) return `needs the right ${wanted.join(" or ")}`;
  if (client !== undefined && !covers(who.clients, client)) return `your key does not cover the client ${client}`;
  if (topic !== undefined && !covers(who.topics, topic)) return `your key does not cover the topic ${topic}`;
  return null;
}

export const useMe = () => useObservable(me);
