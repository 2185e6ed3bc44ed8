/** What can be done with schedules: each an action for parts/bulk.js, for one as for many. */
import { call } from "../state/api.js";

/** @import { Action, Item } from "./bulk.js" */

/** @typedef {"/schedules/cancel" | "/schedules/fire" | "/schedules/retry" | "/admin/dead-letters/retry" | "/admin/dead-letters/discard"} Path */

/** @param {Item} each */
const named = ({ clientId, scheduleKey }) => ({ clientId, scheduleKey });
/** As the reader saw it: what was changed meanwhile is left alone, and a batch that is sent again acts on none twice. @param {Item} each */
const seen = ({ version, ...each }) => ({ ...named(each), ...(version === undefined ? {} : { ifVersion: version }) });
/** @param {Item} each */
const nameOf = (each) => `${each.clientId}/${each.scheduleKey}`;
/** @type {(path: Path, member?: "schedules" | "deadLetters", of?: (each: Item) => object) => Action["send"]} */
const batch = (path, member = "schedules", of = named) => async (items, reason) =>
  (await call("POST", path, { body: /** @type {any} a name that is computed has no type */ ({ [member]: items.map(of), reason }) })).data.results;

/** @type {Action} */
export const CANCEL = {
  verb: "Cancel", did: "cancelled", nameOf, send: batch("/schedules/cancel"),
  warning: "A cancelled schedule is never delivered, and cannot be brought back; it can be made anew.",
};
/** @type {Action} */
export const FIRE = {
  verb: "Fire", did: "due now", nameOf, send: batch("/schedules/fire", "schedules", seen),
  warning: "What is fired is delivered at once, behind what is due already; it cannot be called back.",
};
/** @type {Action} */
export const RETRY = {
  verb: "Retry", did: "pending again", mild: true, nameOf, send: batch("/schedules/retry", "schedules", seen),
  warning: "What has failed is pending again and due now, with its content as it was.",
};

/**
 * A letter of a run of a job is named by its place as well: no key leads to it.
 * @param {Item} each
 */
const letter = ({ clientId, scheduleKey, deliveryId, jobId, deadLetterTopic, partition, offset }) => (jobId === undefined
  ? { clientId, scheduleKey, deliveryId }
  : { clientId, jobId, deliveryId, deadLetterTopic, partition, offset });
/** @type {Action} */
export const RETRY_LETTERS = {
  ...RETRY, noun: "dead letter", warning: `${RETRY.warning} A run of a job is run again by hand, once.`, send: batch("/admin/dead-letters/retry", "deadLetters", letter),
};
/** @type {Action} */
export const DISCARD_LETTERS = {
  verb: "Discard", noun: "dead letter", did: "discarded", nameOf,
  send: batch("/admin/dead-letters/discard", "deadLetters", letter),
  warning: "A discarded letter is no longer open. It stays in its topic until its retention ends.",
};
