/** Links into other tools, as the operator configured them (`CLOCKWORK_UI_LINKS`). */
import { html } from "../lib.js";
import { useMe } from "../state/session.js";
import { SafeText } from "./text.js";

/** @import { Hole } from "../lib.js" */

/**
 * An address with its places filled in; null without one, and for anything but http and https.
 * @param {string | undefined} pattern @param {Record<string, string | number | bigint>} values
 */
export function filled(pattern, values) {
  if (!pattern) return null;
  const address = pattern.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? encodeURIComponent(String(values[name])) : whole));
  return /^https?:\/\//.test(address) ? address : null;
}

/** @param {{address: string | null, children?: Hole}} props */
function ExternalLink({ address, children }) {
  return address === null ? children : html`<a href=${address} target="_blank" rel="noopener noreferrer">${children}<span class="sr-only"> (opens another tool)</span></a>`;
}

/** The name of a topic. @param {{topic?: string | null}} props */
export function TopicName({ topic }) {
  const me = useMe();
  if (topic === null || topic === undefined) return "–";
  return html`<${ExternalLink} address=${filled(me?.links?.topic, { topic })}>${topic}<//>`;
}

/**
 * The place of a record; `bare`: its topic stands beside it.
 * @param {{topic?: string | null, partition: number, offset: string | number | bigint, bare?: boolean}} props
 */
export function RecordPlace({ topic, partition, offset, bare = false }) {
  const me = useMe();
  const text = `Kafka partition ${partition}, offset ${offset}`;
  if (topic === null || topic === undefined) return html`<span>a topic that could not be read, ${text}</span>`;
  return html`<span>${!bare && html`<${TopicName} topic=${topic} />, `}<${ExternalLink} address=${filled(me?.links?.record, { topic, partition, offset })}>${text}<//></span>`;
}

/** A trace, by the header that names it (W3C Trace Context). @param {{traceparent: string}} props */
export function TraceLink({ traceparent }) {
  const me = useMe();
  const traceId = /^[0-9a-f]{2}-([0-9a-f]{32})-/.exec(traceparent)?.[1];
  return html`<code><${ExternalLink} address=${traceId ? filled(me?.links?.trace, { traceId }) : null}><${SafeText} text=${traceparent} /><//></code>`;
}
