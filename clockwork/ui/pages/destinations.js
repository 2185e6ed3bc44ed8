/** Where records go: topics, and what is held back. */
import { html, useState } from "../lib.js";
import { Dialog } from "../parts/dialog.js";
import { Act, Choice, REASON_CHARS_MAX, TextField, say } from "../parts/form.js";
import { quantileText, sumOf } from "../parts/minutes.js";
import { AsOf, Details, View } from "../parts/states.js";
import { Table } from "../parts/table.js";
import { Plain, Status } from "../parts/text.js";
import { Time } from "../parts/time.js";
import { ApiError, call } from "../state/api.js";
import { now } from "../state/clock.js";
import { useResource } from "../state/poll.js";
import { missing, useMe } from "../state/session.js";
import { href } from "../state/url.js";

/** @import { Column } from "../parts/table.js" */

const EVERY_MS = 10_000;
const HOUR_MS = 3_600_000;
const KINDS = /** @type {const} */ ({ client: "clients", topic: "topics" });

/** @typedef {keyof typeof KINDS} Kind */
/** @typedef {{kind: Kind, name: string, resume?: boolean}} Asked a pause, or a resume, of one */
/** @typedef {Api.PausedDocument & {kind: Kind}} Paused */
/** @typedef {(kind: Kind, name?: string) => string | null} May why not; null: the reader may */

export function DestinationsPage() {
  const me = useMe();
  const [asked, setAsked] = useState(/** @type {Asked | null} */ (null));
  const pauses = useResource("pauses", async (signal) => {
    const answer = await call("GET", "/admin/pauses", { signal });
    const rows = /** @type {[Kind, "clients" | "topics"][]} */ (Object.entries(KINDS)).flatMap(([kind, member]) => answer.data[member].map((each) => ({ kind, ...each })));
    return { rows: rows.sort((a, b) => a.since - b.since) };
  }, { everyMs: EVERY_MS });
  const minutes = useResource("topics", async (signal) => (await call("GET", "/minutes", { query: { from: Math.floor((now() - HOUR_MS) / 60_000) * 60_000, stepMs: HOUR_MS }, signal })).data, { everyMs: EVERY_MS });
  /** @type {May} */
  const may = (kind, name) => missing(me, "operate", name === undefined ? {} : { [kind]: name });
  /** @type {Column<Paused>[]} */
  const columns = [
    { id: "name", label: "Name", head: true, className: "key", cell: (row) => (row.kind === "client" ? html`<a href=${href("/schedules", { client: row.name })}><${Plain} text=${row.name} /></a>` : html`<${Plain} text=${row.name} />`) },
    { id: "kind", label: "Kind", cell: (row) => row.kind },
    { id: "state", label: "State", cell: () => html`<${Status} value="paused" />` },
    { id: "since", label: "Since", cell: (row) => html`<${Time} ms=${row.since} />` },
    { id: "act", label: "Action", cell: (row) => html`<${Act} className="small" why=${may(row.kind, row.name)} label=${`Resume ${row.kind} ${row.name}`} onClick=${() => setAsked({ ...row, resume: true })}>Resume…<//>` },
  ];
  return html`
    <div class="head"><h1 tabindex="-1">Destinations</h1><${Act} why=${may("client")} data-actions onClick=${() => setAsked({ kind: "topic", name: "" })}>Pause…<//></div>
    <section aria-labelledby="paused-title" class="form"><h2 id="paused-title">Held back</h2>
      <${View} of=${pauses}>${pauses.data && html`
        <${AsOf} of=${pauses} live />
        ${pauses.data.rows.length > 0
          ? html`<${Table} caption="Paused clients and topics" columns=${columns} rows=${pauses.data.rows} keyOf=${(/** @type {Paused} */ row) => `${row.kind}/${row.name}`} />`
          : html`<p class="muted">No client and no topic is paused.</p>`}`}<//></section>
    <section aria-labelledby="topics-title" class="form"><h2 id="topics-title">Topics, last hour</h2>
      <${View} of=${minutes} off=${html`<p>Pauses work without.</p>`}>${minutes.data && html`
        <${AsOf} of=${minutes} live />
        ${minutes.data.waiting.length > 0 && html`<${Table} caption="Topics that take no records, as of the latest minute" columns=${WAITING} rows=${minutes.data.waiting} keyOf=${(/** @type {Api.WaitingTopicDocument} */ row) => row.topic} />
          <p class="muted">What is due for them waits, in order, and is tried again every few seconds; what is due for other topics is not held up.</p>`}
        ${minutes.data.topics.length > 0
          ? html`<${Table} caption="Topics of the last hour" columns=${topicColumns(minutes.data, pauses.data, may, setAsked)} rows=${minutes.data.topics} keyOf=${(/** @type {Api.TopicCountsDocument} */ row) => row.topic} />`
          : html`<p class="muted">Nothing was created for a topic, or delivered to one, in the last hour.</p>`}
        ${minutes.data.otherTopics && sumOf([minutes.data.otherTopics], "delivered") > 0 && html`<p class="muted">${minutes.data.otherTopics.delivered.toLocaleString("en")} more were delivered to other topics.</p>`}`}<//></section>
    ${asked && html`<${Ask} asked=${asked} onClose=${(done) => {
      setAsked(null);
      if (done) pauses.refresh();
    }} />`}`;
}

/** @type {Column<Api.WaitingTopicDocument>[]} */
const WAITING = [
  { id: "topic", label: "Topic", head: true, className: "key", cell: (row) => html`<a href=${href("/activity", { topic: row.topic, kind: "refused" })}>${row.topic}</a>` },
  { id: "state", label: "State", cell: () => html`<span class="status status-bad"><span aria-hidden="true">▲ </span>waits</span>` },
  { id: "reason", label: "Why", cell: (row) => html`<code>${row.reason}</code>` },
  { id: "since", label: "Since", cell: (row) => html`<${Time} ms=${row.since} />` },
];

/**
 * @param {Api.MinutesDocument} minutes @param {{rows: Paused[]} | null} pauses @param {May} may @param {(asked: Asked) => void} onAsk
 * @returns {Column<Api.TopicCountsDocument>[]}
 */
function topicColumns({ latenessBoundsMs }, pauses, may, onAsk) {
  const paused = new Set((pauses?.rows ?? []).filter((row) => row.kind === "topic").map((row) => row.name));
  const count = (/** @type {"created" | "delivered" | "retried" | "failed"} */ name) => (/** @type {Api.TopicCountsDocument} */ row) => row[name].toLocaleString("en");
  return [
    { id: "topic", label: "Topic", head: true, className: "key", cell: (row) => html`<a href=${href("/activity", { topic: row.topic })}>${row.topic}</a>` },
    { id: "state", label: "State", cell: (row) => (paused.has(row.topic) ? html`<${Status} value="paused" />` : row.failed > row.delivered ? html`<span class="status status-bad"><span aria-hidden="true">▲ </span>fails</span>` : row.failed > 0 ? html`<span class="status status-warn"><span aria-hidden="true">◆ </span>some failed</span>` : row.retried > 0 ? html`<span class="status status-warn"><span aria-hidden="true">◆ </span>refuses some</span>` : html`<span class="status status-good"><span aria-hidden="true">● </span>works</span>`) },
    { id: "created", label: "Created", className: "number", cell: count("created") },
    { id: "delivered", label: "Delivered", className: "number", cell: count("delivered") },
    { id: "retried", label: "Tried again", className: "number", cell: count("retried") },
    { id: "failed", label: "Failed", className: "number", cell: count("failed") },
    { id: "half", label: "Half within", className: "number", cell: (row) => quantileText(row.lateness, latenessBoundsMs, 0.5) ?? "–" },
    { id: "most", label: "99 % within", className: "number", cell: (row) => quantileText(row.lateness, latenessBoundsMs, 0.99) ?? "–" },
    { id: "act", label: "Action", cell: (row) => paused.has(row.topic)
      ? html`<${Act} className="small" why=${may("topic", row.topic)} label=${`Resume topic ${row.topic}`} onClick=${() => onAsk({ kind: "topic", name: row.topic, resume: true })}>Resume…<//>`
      : html`<${Act} className="small" why=${may("topic", row.topic)} label=${`Pause topic ${row.topic}`} onClick=${() => onAsk({ kind: "topic", name: row.topic })}>Pause…<//>` },
  ];
}

/** @param {{asked: Asked, onClose: (done: boolean) => void}} props */
function Ask({ asked, onClose }) {
  const [kind, setKind] = useState(asked.kind);
  const [name, setName] = useState(asked.name);
  const [error, setError] = useState(/** @type {ApiError | null} */ (null));
  const [busy, setBusy] = useState(false);
  const [reason, setReason] = useState("");
  const verb = asked.resume ? "Resume" : "Pause";
  const send = async () => {
    setBusy(true);
    setError(null);
    try {
      const path = `/admin/pauses/${KINDS[kind]}/${encodeURIComponent(name.trim())}`;
      const at = /** @type {"/admin/pauses/clients/{clientId}" | "/admin/pauses/topics/{topic}"} */ (path);
      if (asked.resume) await call("DELETE", at);
      else await call("PUT", at, { body: { reason: reason.trim() || undefined } });
      say(asked.resume ? "Resumed" : "Paused");
      onClose(true);
    } catch (wrong) {
      if (!(wrong instanceof ApiError)) throw wrong;
      setError(wrong);
    } finally {
      setBusy(false);
    }
  };
  return html`<${Dialog} title=${asked.resume ? html`Resume the ${kind} <${Plain} text=${name} />?` : "Pause a topic or a client"} onClose=${() => onClose(false)}>
    <form class="form" onSubmit=${(event) => {
      event.preventDefault();
      if (name.trim() && !busy) send();
    }}>
      ${!asked.resume && html`<div class="pair"><${Choice} id="kind" label="What" value=${kind} onChange=${setKind} options=${[["topic", "a topic"], ["client", "a client"]]} />
        <${TextField} id="name" label="Its name" value=${name} onInput=${setName} error=${error?.fields.get(kind === "client" ? "clientId" : "topic")} required /></div>
        <${TextField} id="reason" label="Reason, for people" value=${reason} onInput=${setReason} error=${error?.fields.get("reason")} maxlength=${REASON_CHARS_MAX} />`}
      <p>${asked.resume ? "Delivery goes on within seconds; what is overdue is delivered at once, in order." : "Within seconds every node holds back what is due, in place and in order. Nothing is lost; schedules are accepted, changed and cancelled as before."}</p>
      ${error && html`<div class="notice bad" role="alert"><strong>${error.problem.title}</strong><${Details} error=${error} /></div>`}
      <div class="buttons"><button type="button" data-focus=${asked.resume || undefined} onClick=${() => onClose(false)}>Do nothing</button>
        <${Act} className="primary" why=${name.trim() ? (busy ? "under way" : null) : "name it first"} onClick=${send}>${verb} it<//></div>
    </form>
  <//>`;
}
