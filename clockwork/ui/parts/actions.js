/** What can be done with schedules: each an action for parts/bulk.js, for one as for many. */
import { call } from "../state/api.js";

const named = ({ clientId, scheduleKey }) => ({ clientId, scheduleKey });
const nameOf = (each) => `${each.clientId}/${each.scheduleKey}`;
const batch = (path, member = "schedules", of = named) => async (items) =>
  (await call("POST", path, { body: { [member]: items.map(of) } })).data.results;

export const CANCEL = {
  verb: "Cancel", did: "cancelled", nameOf, send: batch("/schedules/cancel"),
  warning: "A cancelled schedule is never delivered, and cannot be brought back; it can be made anew.",
};
export const FIRE = {
  verb: "Fire", did: "due now", nameOf, send: batch("/schedules/fire"),
  warning: "What is fired is delivered at once, behind what is due already; it cannot be called back.",
};
export const RETRY = {
  verb: "Retry", did: "pending again", nameOf, send: batch("/schedules/retry"),
  warning: "What has failed is pending again and due now, with its content as it was.",
};

const letter = ({ clientId, scheduleKey, deliveryId }) => ({ clientId, scheduleKey, deliveryId });
export const RETRY_LETTERS = {
  ...RETRY, noun: "dead letter", send: batch("/admin/dead-letters/retry", "deadLetters", letter),
};
export const DISCARD_LETTERS = {
  verb: "Discard", noun: "dead letter", did: "discarded", nameOf,
  send: batch("/admin/dead-letters/discard", "deadLetters", letter),
  warning: "A discarded letter is no longer open. It stays in its topic until its retention ends.",
};
