/** Who the reader is, and what they may do: `GET /me`. */
import { ApiError, call, told } from "./api.js";
import { createStore, useStore } from "./store.js";

/** @typedef {{name: string, auth: string, rights: string[], clients: string[], topics: string[], redacted: boolean,
 *             cluster: string, version: string, jobs?: string, search?: string, session?: any}} Me */

/** null: not known yet. */
export const me = createStore(/** @type {Me | null} */ (null));
/** True while a login lies over the page. */
export const loginWanted = createStore(false);
/** Counts logins: what is shown is read again after each. */
export const logins = createStore(0);
/** Why the node could not be asked who the reader is: an ApiError, or null. */
export const meError = createStore(null);

told.loginNeeded = () => loginWanted.set(true);

export async function loadMe() {
  try {
    const found = (await call("GET", "/me")).data;
    // The same again changes nothing on the page.
    if (JSON.stringify(found) !== JSON.stringify(me.get())) me.set(found);
    meError.set(null);
    loginWanted.set(false);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.status !== 401) meError.set(error);
  }
}

/** Logs in with a key. Raises: ApiError. */
export async function login(key) {
  me.set((await call("POST", "/session", { body: { key } })).data);
  meError.set(null);
  loginWanted.set(false);
  logins.update((count) => count + 1);
}

export async function logout() {
  await call("DELETE", "/session");
  me.set(null);
  loginWanted.set(true);
}

function covers(patterns, name) {
  return patterns.some((each) => each === name || (each.endsWith("*") && name.startsWith(each.slice(0, -1))));
}

/**
 * Why the reader may not do something, in words; null if they may. The service decides; this only says it beforehand.
 * @param {Me | null} who
 * @param {string | string[]} rights one of these is enough
 * @param {{client?: string, topic?: string}} [scope]
 */
export function missing(who, rights, { client, topic } = {}) {
  if (who === null) return "not logged in";
  const wanted = [rights].flat();
  if (!wanted.some((each) => who.rights.includes(each))) return `needs the right ${wanted.join(" or ")}`;
  if (client !== undefined && !covers(who.clients, client)) return `your key does not cover the client ${client}`;
  if (topic !== undefined && !covers(who.topics, topic)) return `your key does not cover the topic ${topic}`;
  return null;
}

export const useMe = () => useStore(me);
