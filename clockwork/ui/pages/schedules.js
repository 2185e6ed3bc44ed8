/** A client's schedules. */
import { html, useEffect, useMemo, useState } from "../lib.js";
import { CANCEL, FIRE, RETRY } from "../parts/actions.js";
import { ActionBar, BulkDialog } from "../parts/bulk.js";
import { Choice, TextField, announce } from "../parts/form.js";
import { PauseLines, pausesOf, usePauses, warnedOf } from "../parts/paused.js";
import { AsOf, EmptyState, View } from "../parts/states.js";
import { Table } from "../parts/table.js";
import { SafeText, Status, plural } from "../parts/text.js";
import { Time, instantOf, lengthText, wallHint, wallInput } from "../parts/time.js";
import { ClientChips, ClientField } from "../parts/clients.js";
import { call } from "../state/api.js";
import { now } from "../state/clock.js";
import { jsonText } from "../state/exact.js";
import { useObservable } from "../state/observable.js";
import { useBlockRefresh, useResource } from "../state/poll.js";
import { lastClient, rememberClient, useZone } from "../state/prefs.js";
import { useMe, whyNotAllowed } from "../state/session.js";
import { href, setParams } from "../state/url.js";

/** @import { Action, BulkAction, BulkRequest } from "../parts/bulk.js" */
/** @import { Column } from "../parts/table.js" */

const PAGE = 50;
/** Of one page, where a list is read to its end. */
const LIMIT_MAX = 1_000;
const EVERY_MS = 5_000;
/** Keys of one `POST /schedules/get`; each costs 2 to 3 read units, so only rows that are seen are asked for. */
const GET_MAX = 40;
export const STATUSES = [["", "any"], ["pending", "pending"], ["delivered", "delivered"], ["failed", "failed"], ["cancelled", "cancelled"]];

/** @typedef {Omit<Api.UpcomingScheduleDocument, "status"> & {status: string}} AnyRow */
/** @typedef {Api.ScheduleDocument} Row */
/** @typedef {ReturnType<typeof queryOf>} Query */
/**
 * @typedef {object} Rows
 * @property {Row[]} rows
 * @property {Row[]} waiting new ones, which are not shown yet
 * @property {string | null} cursor
 * @property {Set<string>} changed keys of rows that were changed by the last refresh
 * @property {number | null} units
 * @property {number} walked pages that were read
 */
/** @typedef {{rows: Row[], cursor: string | null, units: number | null}} Answer */

/** Pending, though it was due a while ago: its page says why. */
const OVERDUE_MS = 5_000;
/** @param {AnyRow} row */
const isOverdue = (row) => row.status === "pending" && row.scheduleKey !== undefined && row.jobId === undefined && row.scheduleTime < now() - OVERDUE_MS;

/** @param {{clientId: string, scheduleKey: string}} row */
export const keyOf = (row) => `${row.clientId}/${row.scheduleKey}`;

/** @type {(options?: {client?: boolean, nameless?: string | boolean}) => Column<AnyRow>[]} */
export const columns = ({ client = false, nameless = false } = {}) => [
  ...(client ? [{ id: "client", label: "Client", cell: (/** @type {AnyRow} */ row) => html`<a href=${href("/schedules", { client: row.clientId })}>${row.clientId}</a>` }] : []),
  {
    id: "key", label: "Key", head: true, className: "key",
    cell: (row) => row.jobId !== undefined
      ? html`<a href=${href("/job", { client: row.clientId, job: row.jobId })}><${SafeText} text=${row.jobId} /></a> <span class="muted">job</span>`
      : html`<a href=${href("/schedule", { client: row.clientId, key: row.scheduleKey })}><${SafeText} text=${row.scheduleKey ?? nameless} /></a>`,
  },
  { id: "status", label: "Status", cell: (row) => html`<div><${Status} value=${row.status} />${isOverdue(row) && html` <a href=${href("/schedule", { client: row.clientId, key: row.scheduleKey })}>why?<span class="sr-only"> ${row.scheduleKey} is overdue</span></a>`}</div>` },
  { id: "due", label: "Due", sorts: true, cell: (row) => html`<${Time} ms=${row.scheduleTime} />` },
  { id: "topic", label: "Topic", cell: (row) => row.delivery?.topic ?? "–" },
  { id: "ordering", label: "Ordering key", cell: (row) => row.orderingKey === row.scheduleKey ? html`<span class="muted">its key</span>` : row.orderingKey !== undefined && html`<${SafeText} text=${row.orderingKey} />` },
  { id: "version", label: "Version", className: "number", cell: (row) => row.version },
  { id: "lateness", label: "Lateness", className: "number", cell: (row) => row.delivered ? lengthText(row.delivered.latenessMs) : "" },
];

/** @param {URLSearchParams} params */
export function queryOf(params) {
  return {
    clientId: params.get("client") ?? "",
    status: params.get("status"),
    topic: params.get("topic"),
    orderingKey: params.get("ordering"),
    dueFrom: params.get("from"),
    dueTo: params.get("to"),
    order: params.get("order") === "desc" ? "desc" : null,
  };
}

/** @param {{params: URLSearchParams}} props */
export function SchedulesPage({ params }) {
  const query = queryOf(params);
  const me = useMe();
  const last = useObservable(lastClient);
  const [selected, setSelected] = useState(/** @type {Set<string>} */ (new Set()));
  const [bulk, setBulk] = useState(/** @type {BulkRequest | null} */ (null));
  const [more, setMore] = useState(false);
  const key = query.clientId ? JSON.stringify(["schedules", query]) : null;
  useEffect(() => setSelected(new Set()), [key]);
  useEffect(() => rememberClient(query.clientId), [query.clientId]);
  useBlockRefresh(selected.size > 0);

  const list = useResource(key, async (signal, /** @type {Rows | null} */ before) => {
    const answer = await readPage(query, null, signal);
    if (before === null) return { rows: answer.rows, cursor: answer.cursor, waiting: [], changed: new Set(), units: answer.units, walked: 1 };
    return await updated(before, answer, signal);
  }, { everyMs: EVERY_MS });

  const next = async () => {
    setMore(true);
    try {
      const answer = await readPage(query, list.data?.cursor ?? null, undefined);
      list.edit((data) => ({
        ...data, cursor: answer.cursor, walked: data.walked + 1, units: answer.units,
        rows: [...data.rows, ...answer.rows.filter((row) => !data.rows.some((each) => keyOf(each) === keyOf(row)))],
      }));
    } catch (error) {
      announce(`The next page could not be read: ${/** @type {Error} */ (error).message}`);
    } finally {
      setMore(false);
    }
  };
  const showNew = () => list.edit((data) => ({ ...data, rows: inOrder([...data.rows, ...data.waiting], query.order), waiting: [] }));

  const rows = list.data?.rows ?? [];
  const chosen = rows.filter((row) => selected.has(keyOf(row)));
  const client = query.clientId;
  const pauses = usePauses();
  const held = (/** @type {Row[]} */ some) => pausesOf(pauses, { client, topics: [query.topic ?? undefined, ...some.map((row) => row.delivery?.topic)] });
  const begin = (/** @type {Action} */ action, /** @type {boolean} */ all) => setBulk({
    action: action === CANCEL ? action : warnedOf(action, held(all ? rows : chosen)), items: all ? null : chosen,
    // Without a filter by status an action is meant for what it can act on.
    list: all ? { keyOf, read: (cursor, signal) => readPage({ ...query, status: query.status || statusOf(action) }, cursor, signal, LIMIT_MAX) } : undefined,
    scope: all ? filterText({ ...query, status: query.status || statusOf(action) }) : `selected schedules of ${client}`,
  });

  return html`
    <div class="head"><h1 tabindex="-1">Schedules</h1>
      <div class="buttons"><a class="button" href=${href("/new", { client })}>New schedule</a></div></div>
    <${Filters} params=${params} />
    ${key === null && html`<${EmptyState} title="Which client?">
      <p>Schedules are listed for one client at a time, in the order in which they are due.</p>
      <${ClientChips} path="/schedules" />
      ${last && html`<p><a href=${href("/schedules", { client: last })}>${last}</a> is the one you looked at last.</p>`}
      <p>None yet? <a href=${href("/new")}>Create a schedule</a>, or with curl:</p>
      <pre tabindex="0" role="group" aria-label="Example">${EXAMPLE}</pre><//>`}
    ${key !== null && html`<${View} of=${list} offHint=${html`<p>Each schedule can be had by its key: <a href=${href("/search")}>search for client/key</a>. What is due next is under Upcoming.</p>`}>
      <${AsOf} of=${list} live readUnits=${list.data?.units} />
      <${PauseLines} pauses=${held([])} />
      ${list.data !== null && list.data.waiting.length > 0 && html`<p class="waiting"><button type="button" onClick=${showNew}>${plural(list.data.waiting.length, "new one")}, show</button></p>`}
      ${rows.length > 0 && html`<${ActionBar} selected=${chosen.length} actions=${bulkActionsOf(chosen, me, query, begin)} onNone=${() => setSelected(new Set())} />`}
      ${rows.length > 0 && html`<${Table} caption=${`Schedules of ${client}`} columns=${columns()} rows=${rows} keyOf=${keyOf} nameOf=${(/** @type {Row} */ row) => row.scheduleKey}
        selected=${selected} onSelect=${setSelected} sort=${{ by: "due", order: "asc" }} changed=${list.data?.changed} />`}
      ${rows.length === 0 && list.data?.cursor === null && html`<${Empty} query=${query} />`}
      ${list.data?.cursor && html`<div class="more">
        ${rows.length === 0 && html`<p role="status">Looked at ${plural(list.data.walked, "page")} of the list: none matches so far.</p>`}
        <button type="button" onClick=${next} disabled=${more}>${more ? "Reading…" : rows.length === 0 ? "Go on" : "Show more"}</button></div>`}
      ${list.data?.cursor === null && rows.length > 0 && html`<p class="muted end">${plural(rows.length, "schedule")}; this is the end of the list.</p>`}
    <//>`}
    ${bulk && html`<${BulkDialog} ...${bulk} onClose=${(done) => {
      setBulk(null);
      if (done) {
        setSelected(new Set());
        list.refresh();
      }
    }} />`}
  `;
}

/** @param {Action} action */
const statusOf = (action) => (action === RETRY ? "failed" : "pending");

const EXAMPLE = `curl ${window.location.origin}/schedule -H 'content-type: application/json' -d '{
  "clientId": "shop", "scheduleKey": "order-1", "scheduleTime": "2030-01-31T12:00:00Z",
  "taskData": {"order": 1}, "delivery": {"topic": "orderTopic"}}'`;

/** @param {{query: Query}} props */
function Empty({ query }) {
  const filtered = /** @type {const} */ (["status", "topic", "orderingKey", "dueFrom", "dueTo"]).some((name) => query[name]);
  if (filtered) {
    return html`<${EmptyState} title="No schedule matches these filters.">
      <p><a href=${href("/schedules", { client: query.clientId })}>Clear the filters</a></p><//>`;
  }
  return html`<${EmptyState} title="This client has no schedules.">
    <p>None was created, or their retention has ended. <a href=${href("/new", { client: query.clientId })}>Create one</a>, or with curl:</p>
    <pre tabindex="0" role="group" aria-label="Example">${EXAMPLE.replace('"shop"', () => JSON.stringify(query.clientId))}</pre><//>`;
}

/** @param {Query} query */
function filterText(query) {
  const parts = Object.entries(query).filter(([name, value]) => value && name !== "clientId" && name !== "order").map(([name, value]) => `${name} ${value}`);
  return `all schedules of ${query.clientId}${parts.length ? ` with ${parts.join(", ")}` : ""}`;
}

/**
 * @param {Row[]} chosen @param {Api.MeDocument | null} me @param {Query} query @param {(action: Action, all: boolean) => void} onAct
 * @returns {BulkAction[]}
 */
function bulkActionsOf(chosen, me, query, onAct) {
  const client = query.clientId;
  const filter = query.status || null;
  return /** @type {[Action, string, string, string | string[]][]} */ ([
    [CANCEL, "Cancel…", "Cancel all…", "cancel"],
    [FIRE, "Fire now…", "Fire all now…", ["operate", "create"]],
    [RETRY, "Retry…", "Retry all…", ["operate", "create"]],
  ]).map(([action, text, allText, right]) => {
    const status = statusOf(action);
    const refused = whyNotAllowed(me, right, { client });
    return {
      text, allText, onClick: (all) => onAct(action, all),
      offReason: refused ?? (chosen.some((row) => row.status === status) ? null : `none of the selected is ${status}`),
      offReasonAll: refused ?? (filter === null || filter === status ? null : `the filter shows what is ${filter}`),
    };
  });
}

/** @param {{params: URLSearchParams}} props */
function Filters({ params }) {
  const zone = useZone();
  const start = useMemo(() => valuesOf(params, zone), [params, zone]);
  const [values, setValues] = useState(start);
  useEffect(() => setValues(start), [start]);
  const set = (/** @type {keyof typeof values} */ name) => (/** @type {string} */ value) => setValues({ ...values, [name]: value });
  const submit = (/** @type {SubmitEvent} */ event) => {
    event.preventDefault();
    const instant = (/** @type {string} */ wall) => instantOf({ wall, zone, choice: 0 });
    setParams({
      client: values.client.trim(), status: values.status, topic: values.topic.trim(), ordering: values.ordering,
      from: instant(values.from), to: instant(values.to),
    }, { replace: false });
  };
  const further = Boolean(values.topic || values.ordering || values.from || values.to);
  return html`<form class="filters" onSubmit=${submit} aria-label="Filters">
    <${ClientField} id="client" value=${values.client} onInput=${set("client")} />
    <${Choice} id="status" label="Status" value=${values.status} onChange=${set("status")} options=${STATUSES} />
    <details open=${further}><summary>More filters</summary><div class="row">
      <${TextField} id="topic" label="Topic" value=${values.topic} onInput=${set("topic")} />
      <${TextField} id="ordering" label="Ordering key" value=${values.ordering} onInput=${set("ordering")} />
      <${TextField} id="from" type="datetime-local" step="1" label=${`Due from (${zone})`} value=${values.from} onInput=${set("from")} hint=${wallHint(values.from, zone)} />
      <${TextField} id="to" type="datetime-local" step="1" label=${`Due before (${zone})`} value=${values.to} onInput=${set("to")} hint=${wallHint(values.to, zone)} />
    </div></details>
    <div class="buttons"><button type="submit" class="primary">Show</button></div>
  </form>`;
}

/** @param {URLSearchParams} params @param {string} zone */
function valuesOf(params, zone) {
  const wall = (/** @type {string} */ name) => (/^\d+$/.test(params.get(name) ?? "") ? wallInput(Number(params.get(name)), zone) : "");
  return {
    client: params.get("client") ?? "", status: params.get("status") ?? "", topic: params.get("topic") ?? "",
    ordering: params.get("ordering") ?? "", from: wall("from"), to: wall("to"),
  };
}

// --- reading

/**
 * @param {Query} query @param {string | null} cursor @param {AbortSignal} [signal]
 * @returns {Promise<Answer>}
 */
async function readPage(query, cursor, signal, limit = PAGE) {
  const answer = await call("GET", "/schedules", { query: { ...query, fields: "summary", limit, cursor }, signal });
  return { rows: answer.data.schedules, cursor: answer.data.cursor, units: answer.readUnits };
}

/** @param {Row[]} rows @param {string | null} order */
function inOrder(rows, order) {
  const sign = order === "desc" ? -1 : 1;
  return rows.sort((a, b) => sign * (a.scheduleTime - b.scheduleTime));
}

/**
 * The rows on screen, changed in place: none moves and none goes away under the reader's hand; new ones wait. A row that the
 * list no longer has (its state no longer matches) is asked for by its key.
 * @param {Rows} before @param {Answer} answer @param {AbortSignal} signal
 * @returns {Promise<Rows>}
 */
async function updated(before, answer, signal) {
  const fresh = new Map(answer.rows.map((row) => [keyOf(row), row]));
  const seen = rowsOnScreen();
  const others = before.rows.filter((row) => !fresh.has(keyOf(row)) && row.status === "pending" && seen.has(keyOf(row))).slice(0, GET_MAX);
  if (others.length > 0) {
    for (const row of await present(others, signal)) fresh.set(keyOf(row), row);
  }
  /** @type {Set<string>} */
  const changed = new Set();
  const rows = before.rows.map((row) => {
    const now = fresh.get(keyOf(row));
    if (!now || jsonText(now) === jsonText(row)) return row;
    changed.add(keyOf(row));
    return now;
  });
  const known = new Set(rows.map(keyOf));
  const waiting = answer.rows.filter((row) => !known.has(keyOf(row)) && withinShown(row, before));
  announceDelivered(rows, changed);
  return { ...before, rows, waiting, changed, units: answer.units, cursor: before.cursor };
}

/** Keys of the rows that are within the window. */
function rowsOnScreen() {
  const rows = [.../** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("main tbody tr"))].filter((row) => {
    const { top, bottom } = row.getBoundingClientRect();
    return bottom > 0 && top < window.innerHeight;
  });
  return new Set(rows.map((row) => row.dataset.key));
}

/**
 * Whether a row would stand among those on screen; beyond their end it comes with "show more".
 * @param {Row} row @param {Rows} shown
 */
function withinShown(row, { rows, cursor }) {
  return cursor === null || rows.length === 0 || row.scheduleTime <= rows[rows.length - 1].scheduleTime;
}

let saidAt = 0;
/** @param {Row[]} rows @param {Set<string>} changed */
function announceDelivered(rows, changed) {
  const delivered = rows.filter((row) => changed.has(keyOf(row)) && row.status === "delivered").length;
  if (delivered === 0 || Date.now() - saidAt < 10_000) return;
  saidAt = Date.now();
  announce(`${delivered} of these ${rows.length} ${delivered === 1 ? "was" : "were"} delivered`);
}

/** @param {Row[]} rows @param {AbortSignal} signal */
async function present(rows, signal) {
  const schedules = rows.map(({ clientId, scheduleKey }) => ({ clientId, scheduleKey }));
  const answer = await call("POST", "/schedules/get", { query: { fields: "summary" }, body: { schedules }, signal });
  return answer.data.results.filter((each) => each.status === 200).map((each) => /** @type {Api.ItemDocument} */ (each).schedule);
}
