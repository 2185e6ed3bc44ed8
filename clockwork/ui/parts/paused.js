/** The pauses of clients and topics, said where they will hold something back. */
import { html } from "../lib.js";
import { call } from "../state/api.js";
import { useResource } from "../state/poll.js";
import { useMe } from "../state/session.js";
import { href } from "../state/url.js";
import { SafeText } from "./text.js";
import { Time } from "./time.js";

/** @import { Action } from "./bulk.js" */

const EVERY_MS = 30_000;

/** @typedef {{kind: "client" | "topic", name: string, since: number, by?: string, reason?: string}} Pause */
/** @typedef {{client?: string | null, topics?: (string | undefined)[]}} Names of a client, and of topics */

/** The pauses that the reader may see; none while they are not known. @returns {Pause[]} */
export function usePauses() {
  const me = useMe();
  const looks = me?.rights.some((each) => ["read", "operate", "admin"].includes(each));
  const pauses = useResource(looks ? "pauses that hold back" : null, async (signal) => (await call("GET", "/admin/pauses", { signal })).data, { everyMs: EVERY_MS });
  const { clients = [], topics = [] } = pauses.data ?? {};
  return [...clients.map((each) => ({ kind: /** @type {const} */ ("client"), ...each })), ...topics.map((each) => ({ kind: /** @type {const} */ ("topic"), ...each }))];
}

/** @param {Pause[]} pauses @param {Names} names */
export const pausesOf = (pauses, { client, topics = [] }) => pauses.filter(({ kind, name }) => (kind === "client" ? name === client : topics.includes(name)));

/**
 * An action that makes something due: its dialog says that it will wait.
 * @param {Action} action @param {Pause[]} pauses those that hold back
 * @returns {Action}
 */
export const warnedOf = (action, pauses) => (pauses.length === 0 ? action : {
  ...action,
  warning: `Nothing is delivered yet: the ${pauses.map(({ kind, name }) => `${kind} ${name}`).join(", and the ")} ${pauses.length === 1 ? "is" : "are"} paused. What is due waits until then. ${action.warning}`,
});

/** @param {{pause: Pause}} props */
export const PauseText = ({ pause }) => html`The ${pause.kind} <strong><${SafeText} text=${pause.name} /></strong> is paused since <${Time} ms=${pause.since} />${pause.by !== undefined && html` by <${SafeText} text=${pause.by} />`}${pause.reason !== undefined && html`: <q><${SafeText} text=${pause.reason} /></q>`} <a href=${href("/destinations")}>See what is paused</a>`;

/** A line for each pause that holds back what is due of a client, or of topics. @param {{pauses: Pause[]}} props */
export function PauseLines({ pauses }) {
  return pauses.map((pause) => html`<p class="notice warn" role="note" key=${`${pause.kind}/${pause.name}`}><${PauseText} pause=${pause} /></p>`);
}
