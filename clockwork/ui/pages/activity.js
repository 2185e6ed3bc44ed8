/** What happens now, and happened lately: who did what, and how deliveries went. */
import { html, useEffect, useMemo, useState } from "../lib.js";
import { ClientField } from "../parts/clients.js";
import { Choice, TextField } from "../parts/form.js";
import { RecordPlace } from "../parts/links.js";
import { AsOf, EmptyState, View } from "../parts/states.js";
import { Table } from "../parts/table.js";
import { SafeText, plural } from "../parts/text.js";
import { Time, instantOf, lengthText, wallHint, wallInput } from "../parts/time.js";
import { call } from "../state/api.js";
import { useResource } from "../state/poll.js";
import { useZone } from "../state/prefs.js";
import { href, setParams } from "../state/url.js";

/** @import { Column } from "../parts/table.js" */

const EVERY_MS = 2_000;
const PAGE = 100;
const SHOWN_MAX = 500;
/** Scrolled less than this, the reader is at the top, and new events are shown at once. */
const TOP_PX = 40;
const KINDS = {
  "": "everything", "created,moved,fired,cancelled,retried,discarded,paused,resumed,fenced,batch_cancelled,batch_fired,batch_retried,batch_discarded": "what people and clients did",
  delivered: "deliveries", "refused,failed,dropped": "what went wrong",
  "job_created,job_changed,job_paused,job_resumed,job_deleted,job_restored,job_run,job_backfilled": "what was done to jobs", created: "created", moved: "moved", cancelled: "cancelled", failed: "failed",
};
/** @type {Record<string, [string, string]>} */
const MARKS = {
  created: ["○", ""], moved: ["↷", ""], fired: ["»", ""], cancelled: ["⊘", "muted"], retried: ["↻", ""], discarded: ["⊘", "muted"], delivered: ["●", "status-good"],
  job_created: ["○", ""], job_changed: ["↷", ""], job_paused: ["‖", "status-warn"], job_resumed: ["▸", ""], job_deleted: ["⊘", "muted"], job_restored: ["↻", ""], job_run: ["»", ""], job_backfilled: ["»", ""],
  refused: ["◆", "status-warn"], failed: ["▲", "status-bad"], dropped: ["▲", "status-warn"], paused: ["‖", "status-warn"], resumed: ["▸", ""], fenced: ["◆", "status-warn"],
  batch_cancelled: ["⊘", "muted"], batch_fired: ["»", ""], batch_retried: ["↻", ""], batch_discarded: ["⊘", "muted"],
};

/** @typedef {Api.EventDocument & {id: string}} Row */
/**
 * @typedef {object} Events
 * @property {Row[]} rows newest first
 * @property {Row[]} waiting new ones, which are not shown yet
 * @property {string} cursor
 * @property {number} [keptFrom]
 * @property {boolean} more
 * @property {boolean} missed more happened than is kept
 */

/** @type {Column<Row>[]} */
const COLUMNS = [
  { id: "at", label: "At", className: "when", cell: (row) => html`<${Time} ms=${row.at} />` },
  { id: "kind", label: "What", cell: (row) => html`<span class=${`status ${MARKS[row.kind]?.[1] ?? ""}`}><span aria-hidden="true">${MARKS[row.kind]?.[0] ?? "•"} </span>${row.kind.replace("_", " ")}</span>${row.sampled !== undefined && row.sampled > 1 && html` <span class="muted">stands for about ${row.sampled}</span>`}` },
  { id: "of", label: "Of", head: true, className: "key", cell: (row) => row.jobId !== undefined
    ? html`<span><a href=${href("/job", { client: row.clientId, job: row.jobId, tab: "runs" })}><${SafeText} text=${`${row.clientId}/${row.jobId}`} /></a> ${row.runId !== undefined && html`<span class="muted">run ${row.runId}</span>`}</span>`
    : row.scheduleKey !== undefined ? html`<a href=${href("/schedule", { client: row.clientId, key: row.scheduleKey })}><${SafeText} text=${`${row.clientId}/${row.scheduleKey}`} /></a>`
      : row.clientId !== undefined ? html`client ${row.clientId}` : row.topic !== undefined ? html`topic ${row.topic}` : row.shard !== undefined ? html`<a href=${href("/cluster")}>shard ${row.shard}</a>` : "" },
  { id: "where", label: "Where, or why", cell: (row) => html`${row.result !== undefined && html`<${SafeText} text=${row.result} />${row.lastRefusal !== undefined && html`: <${SafeText} text=${row.lastRefusal} />`}${row.attempts !== undefined && row.attempts > 1 && `, ${plural(row.attempts, "attempt")}`} `}${row.kind === "failed" ? html`<a href=${href("/dead-letters")}>dead letter</a>` : row.kafkaPartition !== undefined && html`<span class="muted"><${RecordPlace} topic=${row.topic} partition=${row.kafkaPartition} offset=${row.offset} bare /></span>`}${row.answers !== undefined ? `${Object.entries(row.answers).map(([answer, count]) => `${count.toLocaleString("en")} ${answer.replaceAll(/[_-]/g, " ")}`).join(", ")} ` : row.count !== undefined ? `${row.count.toLocaleString("en")} in all ` : ""}${row.reason !== undefined && html`<q><${SafeText} text=${row.reason} /></q>`}` },
  { id: "topic", label: "Topic", cell: (row) => row.topic ?? "" },
  { id: "lateness", label: "Lateness", className: "number", cell: (row) => (row.latenessMs === undefined ? "" : lengthText(row.latenessMs)) },
  { id: "by", label: "By", cell: (row) => (row.by === undefined ? "" : html`<${SafeText} text=${row.by} />`) },
];

let numbers = 0;
/** @param {Api.EventDocument[]} events @returns {Row[]} */
const keyed = (events) => events.map((each) => ({ ...each, id: String((numbers += 1)) })).reverse();

/** @param {{params: URLSearchParams}} props */
export function ActivityPage({ params }) {
  const query = { kind: params.get("kind"), clientId: params.get("client"), topic: params.get("topic"), result: params.get("result"), scheduleKey: params.get("key") };
  const from = params.get("from");
  const key = JSON.stringify(["events", query, from]);
  const [later, setLater] = useState(false);
  const list = useResource(key, async (signal, /** @type {Events | null} */ before) => {
    const asked = before === null ? { ...query, from, limit: PAGE } : { ...query, cursor: before.cursor, limit: PAGE };
    const { data } = await call("GET", "/events", { query: asked, signal });
    const fresh = keyed(data.events);
    const base = { cursor: data.cursor, keptFrom: data.keptFrom, more: data.more };
    if (before === null) return { ...base, rows: fresh, waiting: [], missed: false };
    const missed = before.missed || data.missed === true;
    const atTop = window.scrollY < TOP_PX && document.activeElement?.closest?.("table") === null;
    const waiting = [...fresh, ...before.waiting].slice(0, SHOWN_MAX);
    if (!atTop) return { ...base, missed, rows: before.rows, waiting };
    return { ...base, missed, rows: [...waiting, ...before.rows].slice(0, SHOWN_MAX), waiting: [] };
  }, { everyMs: from ? 0 : EVERY_MS });
  const goOn = async () => {
    setLater(true);
    await list.refresh();
    setLater(false);
  };
  const show = () => {
    list.edit((data) => ({ ...data, rows: [...data.waiting, ...data.rows].slice(0, SHOWN_MAX), waiting: [] }));
    window.scrollTo(0, 0);
  };
  const filtered = Object.values(query).some(Boolean) || from;
  return html`
    <h1 tabindex="-1">Activity</h1>
    <${Filters} params=${params} />
    <${View} of=${list} offHint=${html`<p>Schedules, jobs and dead letters work without: <a href=${href("/schedules")}>Schedules</a>.</p>`}>${list.data && html`
      <${AsOf} of=${list} live=${!from}>${list.data.keptFrom !== undefined && html`<span>, kept since <${Time} ms=${list.data.keptFrom} form="relative" /></span>`}<//>
      ${list.data.missed && html`<p class="notice warn" role="status">More happened than is kept: there is a gap in this list.</p>`}
      ${list.data.waiting.length > 0 && html`<p class="waiting"><button type="button" onClick=${show}>${list.data.waiting.length} new, show</button></p>`}
      ${from && html`<div class="buttons"><button type="button" onClick=${goOn} disabled=${later}>${list.data.more ? "Later ones" : "What came since"}</button><a href=${href("/activity", { kind: query.kind, client: query.clientId, topic: query.topic, result: query.result })}>Back to now</a></div>`}
      ${list.data.rows.length > 0
        ? html`<${Table} caption="Events, newest first" columns=${COLUMNS} rows=${list.data.rows} keyOf=${(/** @type {Row} */ row) => row.id} />`
        : html`<${EmptyState} title=${filtered ? "No event that is kept matches." : "Nothing has happened yet."}><p>${filtered ? html`<a href=${href("/activity")}>Clear the filters</a>` : html`Events appear here within a second or two. <a href=${href("/new")}>Create a schedule</a>`}</p><//>`}`}<//>`;
}

/** @param {{params: URLSearchParams}} props */
function Filters({ params }) {
  const zone = useZone();
  const start = useMemo(() => ({
    kind: params.get("kind") ?? "", client: params.get("client") ?? "", topic: params.get("topic") ?? "", result: params.get("result") ?? "", key: params.get("key") ?? "",
    from: /^\d+$/.test(params.get("from") ?? "") ? wallInput(Number(params.get("from")), zone) : "",
  }), [params, zone]);
  const [values, setValues] = useState(start);
  useEffect(() => setValues(start), [start]);
  const set = (/** @type {keyof typeof values} */ name) => (/** @type {string} */ value) => setValues({ ...values, [name]: value });
  return html`<form class="filters" aria-label="Filters" onSubmit=${(event) => {
    event.preventDefault();
    setParams({ kind: values.kind, client: values.client.trim(), topic: values.topic.trim(), result: values.result.trim(), key: values.key, from: instantOf({ wall: values.from, zone, choice: 0 }) }, { replace: false });
  }}>
    <${Choice} id="kind" label="What" value=${values.kind} onChange=${set("kind")} options=${Object.entries(KINDS)} />
    <${ClientField} id="client" value=${values.client} onInput=${set("client")} required=${false} />
    <${TextField} id="topic" label="Topic" value=${values.topic} onInput=${set("topic")} />
    <${TextField} id="result" label="Reason, such as topic_missing" value=${values.result} onInput=${set("result")} />
    <${TextField} id="from" type="datetime-local" step="1" label=${`From (${zone})`} value=${values.from} onInput=${set("from")} hint=${wallHint(values.from, zone)} />
    <div class="buttons"><button type="submit" class="primary">Show</button></div>
  </form>`;
}
