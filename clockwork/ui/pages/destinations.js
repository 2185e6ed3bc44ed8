/** Where records go: topics, and what is paused. */
import { html, useState } from "../lib.js";
import { useClients } from "../parts/clients.js";
import { Dialog } from "../parts/dialog.js";
import { ActionButton, Choice, REASON_CHARS_MAX, TextField, announce, useSending } from "../parts/form.js";
import { quantileText, sumOf } from "../parts/minutes.js";
import { AsOf, Details, View } from "../parts/states.js";
import { Table } from "../parts/table.js";
import { SafeText, Status } from "../parts/text.js";
import { Time } from "../parts/time.js";
import { call } from "../state/api.js";
import { now } from "../state/clock.js";
import { useResource } from "../state/poll.js";
import { useMe, whyNotAllowed } from "../state/session.js";
import { href } from "../state/url.js";

/** @import { Column } from "../parts/table.js" */

const EVERY_MS = 10_000;
const HOUR_MS = 3_600_000;
const KINDS = /** @type {const} */ ({ client: "clients", topic: "topics" });

/** @typedef {keyof typeof KINDS} Kind */
/** @typedef {{kind: Kind, name: string, resume?: boolean}} PauseRequest the pause that a dialog asks for, or the resume */
/** @typedef {Api.PausedDocument & {kind: Kind}} Paused */
/** @typedef {(kind: Kind, name?: string) => string | null} WhyNot why the reader may not pause it, in words; null: allowed */

export function DestinationsPage() {
  const me = useMe();
  const [asked, setAsked] = useState(/** @type {PauseRequest | null} */ (null));
  const pauses = useResource("pauses", async (signal) => {
    const answer = await call("GET", "/admin/pauses", { signal });
    const rows = /** @type {[Kind, "clients" | "topics"][]} */ (Object.entries(KINDS)).flatMap(([kind, member]) => answer.data[member].map((each) => ({ kind, ...each })));
    return { rows: rows.sort((a, b) => a.since - b.since) };
  }, { everyMs: EVERY_MS });
  const minutes = useResource("topics", async (signal) => (await call("GET", "/minutes", { query: { from: Math.floor((now() - HOUR_MS) / 60_000) * 60_000, stepMs: HOUR_MS }, signal })).data, { everyMs: EVERY_MS });
  /** @type {WhyNot} */
  const whyNot = (kind, name) => whyNotAllowed(me, "operate", name === undefined ? {} : { [kind]: name });
  /** @type {Column<Paused>[]} */
  const columns = [
    { id: "name", label: "Name", head: true, className: "key", cell: (row) => (row.kind === "client" ? html`<a href=${href("/schedules", { client: row.name })}><${SafeText} text=${row.name} /></a>` : html`<${SafeText} text=${row.name} />`) },
    { id: "kind", label: "Kind", cell: (row) => row.kind },
    { id: "state", label: "State", cell: () => html`<${Status} value="paused" />` },
    { id: "since", label: "Since", cell: (row) => html`<${Time} ms=${row.since} />` },
    { id: "by", label: "By", cell: (row) => (row.by === undefined ? html`<span class="muted">not shown to you</span>` : html`<${SafeText} text=${row.by} />`) },
    { id: "reason", label: "Reason", cell: (row) => (row.reason === undefined ? html`<span class="muted">none given</span>` : html`<${SafeText} text=${row.reason} />`) },
    { id: "act", label: "Action", cell: (row) => html`<${ActionButton} className="small" offReason=${whyNot(row.kind, row.name)} label=${`Resume ${row.kind} ${row.name}`} onClick=${() => setAsked({ ...row, resume: true })}>Resume…<//>` },
  ];
  return html`
    <div class="head"><h1 tabindex="-1">Destinations</h1><${ActionButton} offReason=${whyNot("client")} data-actions onClick=${() => setAsked({ kind: "topic", name: "" })}>Pause…<//></div>
    <section aria-labelledby="paused-title" class="form"><h2 id="paused-title">Paused</h2>
      <${View} of=${pauses}>${pauses.data && html`
        <${AsOf} of=${pauses} live />
        ${pauses.data.rows.length > 0
          ? html`<${Table} caption="Paused clients and topics" columns=${columns} rows=${pauses.data.rows} keyOf=${(/** @type {Paused} */ row) => `${row.kind}/${row.name}`} />`
          : html`<p class="muted">No client and no topic is paused.</p>`}`}<//></section>
    <section aria-labelledby="topics-title" class="form"><h2 id="topics-title">Topics, last hour</h2>
      <${View} of=${minutes} offHint=${html`<p>Pauses work without.</p>`}>${minutes.data && html`
        <${AsOf} of=${minutes} live />
        ${minutes.data.waiting.length > 0 && html`<${Table} caption="Topics that take no records, as of the latest minute" columns=${WAITING} rows=${minutes.data.waiting} keyOf=${(/** @type {Api.WaitingTopicDocument} */ row) => row.topic} />
          <p class="muted">What is due for them waits, in order, and is tried again every few seconds; what is due for other topics is not held up.</p>`}
        ${minutes.data.topics.length > 0
          ? html`<${Table} caption="Topics of the last hour" columns=${topicColumns(minutes.data, pauses.data, whyNot, setAsked)} rows=${minutes.data.topics} keyOf=${(/** @type {Api.TopicCountsDocument} */ row) => row.topic} />`
          : html`<p class="muted">Nothing was created for a topic, or delivered to one, in the last hour.</p>`}
        ${minutes.data.otherTopics && sumOf([minutes.data.otherTopics], "delivered") > 0 && html`<p class="muted">${minutes.data.otherTopics.delivered.toLocaleString("en")} more were delivered to other topics.</p>`}`}<//></section>
    ${asked && html`<${PauseDialog} asked=${asked} topics=${minutes.data} onClose=${(done) => {
      setAsked(null);
      if (done) pauses.refresh();
    }} />`}`;
}

const waitsText = () => html`<span class="status status-bad"><span aria-hidden="true">▲ </span>waits</span>`;

/** @type {Column<Api.WaitingTopicDocument>[]} */
const WAITING = [
  { id: "topic", label: "Topic", head: true, className: "key", cell: (row) => html`<a href=${href("/activity", { topic: row.topic, kind: "refused" })}>${row.topic}</a>` },
  { id: "state", label: "State", cell: waitsText },
  { id: "reason", label: "Why", cell: (row) => html`<code>${row.reason}</code>` },
  { id: "since", label: "Since", cell: (row) => html`<${Time} ms=${row.since} />` },
];

/** @type {Column<Api.TopicCountsDocument>} */
const RATE_LIMIT_COLUMN = { id: "limit", label: "Rate limit", cell: (row) => (row.rateLimit === undefined ? "none" : html`${row.rateLimit.perSecond.toLocaleString("en")} a second${row.rateLimit.waits > 0 && html`, <span class="status status-warn"><span aria-hidden="true">◆ </span>held back</span>`}`) };

/**
 * @param {Api.MinutesDocument} minutes @param {{rows: Paused[]} | null} pauses @param {WhyNot} whyNot @param {(asked: PauseRequest) => void} onAsk
 * @returns {Column<Api.TopicCountsDocument>[]}
 */
function topicColumns({ latenessBoundsMs, topics, waiting }, pauses, whyNot, onAsk) {
  const waits = new Set(waiting.map((row) => row.topic));
  const paused = new Set((pauses?.rows ?? []).filter((row) => row.kind === "topic").map((row) => row.name));
  const count = (/** @type {"created" | "delivered" | "retried" | "failed"} */ name) => (/** @type {Api.TopicCountsDocument} */ row) => row[name].toLocaleString("en");
  return [
    { id: "topic", label: "Topic", head: true, className: "key", cell: (row) => html`<a href=${href("/activity", { topic: row.topic })}>${row.topic}</a>` },
    { id: "state", label: "State", cell: (row) => (paused.has(row.topic) ? html`<${Status} value="paused" />` : waits.has(row.topic) ? waitsText() : row.failed > row.delivered ? html`<span class="status status-bad"><span aria-hidden="true">▲ </span>fails</span>` : row.failed > 0 ? html`<span class="status status-warn"><span aria-hidden="true">◆ </span>some failed</span>` : row.retried > 0 ? html`<span class="status status-warn"><span aria-hidden="true">◆ </span>refuses some</span>` : html`<span class="status status-good"><span aria-hidden="true">● </span>works</span>`) },
    { id: "created", label: "Created", className: "number", cell: count("created") },
    { id: "delivered", label: "Delivered", className: "number", cell: count("delivered") },
    { id: "retried", label: "Tried again", className: "number", cell: count("retried") },
    { id: "failed", label: "Failed", className: "number", cell: count("failed") },
    ...(topics.some((row) => row.rateLimit) ? [RATE_LIMIT_COLUMN] : []),
    { id: "half", label: "Half within", className: "number", cell: (row) => quantileText(row.lateness, latenessBoundsMs, 0.5) ?? "–" },
    { id: "most", label: "99 % within", className: "number", cell: (row) => quantileText(row.lateness, latenessBoundsMs, 0.99) ?? "–" },
    { id: "act", label: "Action", cell: (row) => paused.has(row.topic)
      ? html`<${ActionButton} className="small" offReason=${whyNot("topic", row.topic)} label=${`Resume topic ${row.topic}`} onClick=${() => onAsk({ kind: "topic", name: row.topic, resume: true })}>Resume…<//>`
      : html`<${ActionButton} className="small" offReason=${whyNot("topic", row.topic)} label=${`Pause topic ${row.topic}`} onClick=${() => onAsk({ kind: "topic", name: row.topic })}>Pause…<//>` },
  ];
}

/** @param {{asked: PauseRequest, topics: Api.MinutesDocument | null, onClose: (done: boolean) => void}} props */
function PauseDialog({ asked, topics, onClose }) {
  const clients = useClients();
  const [kind, setKind] = useState(asked.kind);
  const [name, setName] = useState(asked.name);
  const sending = useSending();
  const { busy, error } = sending;
  const [reason, setReason] = useState("");
  // A pause of what is to come is legal: a word about a name that may be a slip, and no refusal.
  const wanted = name.trim();
  const unknown = asked.resume || wanted === "" ? null
    : kind === "client" ? clients.length > 0 && !clients.includes(wanted) && `No create of a client ${wanted} is known. If the name is right, what it creates later is held back.`
    : topics !== null && ![...topics.topics, ...topics.waiting].some((each) => each.topic === wanted) && `Nothing was created for a topic ${wanted}, or delivered to it, in the last hour. If the name is right, what is due for it later is held back.`;
  const verb = asked.resume ? "Resume" : "Pause";
  const send = () => sending.send(async () => {
    const path = `/admin/pauses/${KINDS[kind]}/${encodeURIComponent(name.trim())}`;
    const at = /** @type {"/admin/pauses/clients/{clientId}" | "/admin/pauses/topics/{topic}"} */ (path);
    if (asked.resume) await call("DELETE", at);
    else await call("PUT", at, { body: { reason: reason.trim() || undefined } });
    announce(asked.resume ? "Resumed" : "Paused");
    onClose(true);
  });
  return html`<${Dialog} title=${asked.resume ? html`Resume the ${kind} <${SafeText} text=${name} />?` : "Pause a topic or a client"} onClose=${() => onClose(false)}>
    <form class="form" onSubmit=${(event) => {
      event.preventDefault();
      if (name.trim() && !busy) send();
    }}>
      ${!asked.resume && html`<div class="pair"><${Choice} id="kind" label="What" value=${kind} onChange=${setKind} options=${[["topic", "a topic"], ["client", "a client"]]} />
        <${TextField} id="name" label="Its name" value=${name} onInput=${setName} error=${error?.fields.get(kind === "client" ? "clientId" : "topic")} required /></div>
        <p class="hint" aria-live="polite">${unknown && html`<span class="status status-warn"><span aria-hidden="true">◆ </span><${SafeText} text=${unknown} /></span>`}</p>
        <${TextField} id="reason" label="Reason, for people" value=${reason} onInput=${setReason} error=${error?.fields.get("reason")} maxlength=${REASON_CHARS_MAX} />`}
      <p>${asked.resume ? "Delivery goes on within seconds; what is overdue is delivered at once, in order." : "Within seconds every node holds back what is due, in place and in order. Nothing is lost; schedules are accepted, changed and cancelled as before."}</p>
      ${error && html`<div class="notice bad" role="alert"><strong>${error.problem.title}</strong><${Details} error=${error} /></div>`}
      <div class="buttons"><button type="button" data-focus=${asked.resume || undefined} onClick=${() => onClose(false)}>Do nothing</button>
        <${ActionButton} className="primary" offReason=${name.trim() ? (busy ? "under way" : null) : "name it first"} onClick=${send}>${verb} it<//></div>
    </form>
  <//>`;
}
