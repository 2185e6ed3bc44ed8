/** A client's recurring jobs. */
import { html, useEffect, useState } from "../lib.js";
import { ClientChips, ClientField } from "../parts/clients.js";
import { Choice, TextField, announce } from "../parts/form.js";
import { AsOf, EmptyState, View } from "../parts/states.js";
import { Table } from "../parts/table.js";
import { SafeText, Status, plural } from "../parts/text.js";
import { Time } from "../parts/time.js";
import { triggerWords } from "../parts/trigger.js";
import { call } from "../state/api.js";
import { useObservable } from "../state/observable.js";
import { useResource } from "../state/poll.js";
import { lastClient, rememberClient } from "../state/prefs.js";
import { href, setParams } from "../state/url.js";

/** @import { Column } from "../parts/table.js" */

const EVERY_MS = 10_000;
const PAGE = 50;
const STATES = [["", "not deleted"], ["active", "active"], ["paused", "paused"], ["ended", "ended"], ["deleted", "deleted"]];

/** @type {Column<Api.JobDocument>[]} */
const COLUMNS = [
  { id: "job", label: "Job", head: true, className: "key", cell: (row) => html`<div><a href=${href("/job", { client: row.clientId, job: row.jobId })}><${SafeText} text=${row.jobId} /></a>
    ${row.description && html`<br /><span class="muted"><${SafeText} text=${row.description} /></span>`}</div>` },
  { id: "state", label: "State", cell: (row) => html`<div><${Status} value=${row.status} />${row.note && html`<br /><span class="muted"><${SafeText} text=${row.note} /></span>`}</div>` },
  { id: "trigger", label: "Runs", cell: (row) => html`<${SafeText} text=${triggerWords(row.trigger)} />` },
  { id: "next", label: "Next", cell: (row) => (row.nextRun ? html`<${Time} ms=${row.nextRun.dueAt} />` : "–") },
  { id: "topic", label: "Topic", cell: (row) => row.delivery.topic },
  { id: "delivered", label: "Delivered", className: "number", cell: (row) => row.counts.delivered.toLocaleString("en") },
  { id: "failed", label: "Failed", className: "number", cell: (row) => row.counts.failed ? html`<span class="status-bad">${row.counts.failed.toLocaleString("en")}</span>` : "0" },
  { id: "skipped", label: "Skipped", className: "number", cell: (row) => row.counts.skipped.toLocaleString("en") },
];
/** @param {Api.JobDocument} row */
const keyOf = (row) => `${row.clientId}/${row.jobId}`;

/** @typedef {{rows: Api.JobDocument[], cursor: string | null, waiting: Api.JobDocument[], units: number | null}} Jobs */

/** @param {{params: URLSearchParams}} props */
export function JobsPage({ params }) {
  const last = useObservable(lastClient);
  /** @type {Api.Query<"GET", "/jobs"> & {clientId: string}} */
  const query = { clientId: params.get("client") ?? "", status: params.get("status"), topic: params.get("topic"), label: params.get("label") };
  if (query.status === "deleted") Object.assign(query, { status: null, deleted: "true" });
  const key = query.clientId ? JSON.stringify(["jobs", query]) : null;
  const [more, setMore] = useState(false);
  useEffect(() => rememberClient(query.clientId), [query.clientId]);
  const list = useResource(key, async (signal, /** @type {Jobs | null} */ before) => {
    const answer = await call("GET", "/jobs", { query: { ...query, limit: PAGE }, signal });
    const { jobs, cursor } = answer.data;
    if (before === null) return { rows: jobs, cursor, waiting: [], units: answer.readUnits };
    const fresh = new Map(jobs.map((row) => [keyOf(row), row]));
    const known = new Set(before.rows.map(keyOf));
    return {
      ...before, units: answer.readUnits, rows: before.rows.map((row) => fresh.get(keyOf(row)) ?? row),
      waiting: before.cursor === null || jobs.length < PAGE ? jobs.filter((row) => !known.has(keyOf(row))) : [],
    };
  }, { everyMs: EVERY_MS });
  const next = async () => {
    setMore(true);
    try {
      const { data } = await call("GET", "/jobs", { query: { ...query, limit: PAGE, cursor: list.data?.cursor } });
      list.edit((before) => ({ ...before, rows: [...before.rows, ...data.jobs], cursor: data.cursor }));
    } catch (error) {
      announce(`The next page could not be read: ${/** @type {Error} */ (error).message}`);
    } finally {
      setMore(false);
    }
  };
  const rows = list.data?.rows ?? [];
  const filtered = /** @type {const} */ (["status", "topic", "label", "deleted"]).some((name) => query[name]);
  return html`
    <div class="head"><h1 tabindex="-1">Jobs</h1><a class="button" href=${href("/new-job", { client: query.clientId })}>New job</a></div>
    <${Filters} key=${key} params=${params} />
    ${key === null && html`<${EmptyState} title="Which client?"><p>Jobs are listed for one client at a time.</p><${ClientChips} path="/jobs" />
      ${last && html`<p><a href=${href("/jobs", { client: last })}>${last}</a> is the one you looked at last.</p>`}<//>`}
    ${key !== null && html`<${View} of=${list} offHint=${html`<p>Schedules that are due once work without.</p>`}>
      <${AsOf} of=${list} live readUnits=${list.data?.units} />
      ${list.data !== null && list.data.waiting.length > 0 && html`<p class="waiting"><button type="button" onClick=${() => list.edit((data) => ({ ...data, rows: [...data.rows, ...data.waiting], waiting: [] }))}>${plural(list.data.waiting.length, "new one")}, show</button></p>`}
      ${rows.length > 0 && html`<${Table} caption=${`Jobs of ${query.clientId}`} columns=${COLUMNS} rows=${rows} keyOf=${keyOf} />`}
      ${rows.length === 0 && list.data?.cursor === null && (filtered
        ? html`<${EmptyState} title="No job matches these filters."><p><a href=${href("/jobs", { client: query.clientId })}>Clear the filters</a></p><//>`
        : html`<${EmptyState} title="This client has no jobs."><p><a href=${href("/new-job", { client: query.clientId })}>Create one</a></p><//>`)}
      ${list.data?.cursor && html`<div class="more">${rows.length === 0 && html`<p role="status">None of those looked at matches.</p>`}
        <button type="button" onClick=${next} disabled=${more}>${rows.length === 0 ? "Go on" : "Show more"}</button></div>`}
    <//>`}`;
}

/** @param {{params: URLSearchParams}} props */
function Filters({ params }) {
  const [values, setValues] = useState({ client: params.get("client") ?? "", status: params.get("status") ?? "", topic: params.get("topic") ?? "", label: params.get("label") ?? "" });
  const set = (/** @type {keyof typeof values} */ name) => (/** @type {string} */ value) => setValues({ ...values, [name]: value });
  return html`<form class="filters" aria-label="Filters" onSubmit=${(event) => {
    event.preventDefault();
    setParams({ ...values, client: values.client.trim(), topic: values.topic.trim() }, { replace: false });
  }}>
    <${ClientField} id="client" value=${values.client} onInput=${set("client")} />
    <${Choice} id="status" label="State" value=${values.status} onChange=${set("status")} options=${STATES} />
    <${TextField} id="topic" label="Topic" value=${values.topic} onInput=${set("topic")} />
    <${TextField} id="label" label="Label" placeholder="name:value" value=${values.label} onInput=${set("label")} />
    <div class="buttons"><button type="submit" class="primary">Show</button></div>
  </form>`;
}
