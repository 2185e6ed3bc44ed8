/** What is due next, of all clients that the reader's key covers. */
import { html, useEffect, useMemo, useState } from "../lib.js";
import { CANCEL, FIRE } from "../parts/actions.js";
import { ActionBar, BulkDialog } from "../parts/bulk.js";
import { ClientField } from "../parts/clients.js";
import { TextField, announce } from "../parts/form.js";
import { AsOf, EmptyState, View } from "../parts/states.js";
import { Table } from "../parts/table.js";
import { plural } from "../parts/text.js";
import { instantOf, wallHint, wallInput, wallText } from "../parts/time.js";
import { call } from "../state/api.js";
import { useBlockRefresh, useResource } from "../state/poll.js";
import { useZone } from "../state/prefs.js";
import { useMe, whyNotAllowed } from "../state/session.js";
import { href, setParams } from "../state/url.js";
import { columns } from "./schedules.js";

/** @import { Action, BulkAction, BulkRequest } from "../parts/bulk.js" */

const PAGE = 100;
const EVERY_MS = 10_000;
/** @typedef {Omit<Api.UpcomingScheduleDocument, "status"> & {status: string}} Row the status may also be "left the queue" */
/**
 * @typedef {object} Upcoming
 * @property {Row[]} rows
 * @property {Row[]} waiting
 * @property {Set<string>} gone keys of rows that have left the front
 * @property {string | null} cursor
 * @property {number} lookedAt
 * @property {number | null} units
 */

/** @param {Row} row */
const keyOf = (row) => (row.runId !== undefined ? `${row.clientId}/job/${row.jobId}/${row.runId}` : `${row.clientId}/${row.scheduleKey}`);
const COLUMNS = columns({ client: true }).map((each) => ({ ...each, sorts: false })).filter((each) => each.id !== "lateness");

/** @param {{params: URLSearchParams}} props */
export function UpcomingPage({ params }) {
  const query = { clientId: params.get("client"), topic: params.get("topic"), dueFrom: params.get("from"), dueTo: params.get("to") };
  const me = useMe();
  const zone = useZone();
  const [selected, setSelected] = useState(/** @type {Set<string>} */ (new Set()));
  const [bulk, setBulk] = useState(/** @type {BulkRequest | null} */ (null));
  const [more, setMore] = useState(false);
  const key = JSON.stringify(["upcoming", query]);
  useEffect(() => setSelected(new Set()), [key]);
  useBlockRefresh(selected.size > 0);
  const list = useResource(key, async (signal, /** @type {Upcoming | null} */ before) => {
    const { rows, ...base } = await readPage(query, null, signal);
    const { cursor } = base;
    if (before === null) return { rows, waiting: [], gone: new Set(), ...base };
    // What has left the front is due or done: it stays where it is, and says so, until the reader shows the list anew.
    const fresh = new Map(rows.map((row) => [keyOf(row), row]));
    const known = new Set(before.rows.map(keyOf));
    const last = rows.at(-1)?.scheduleTime ?? Infinity;
    const gone = new Set(before.rows.filter((row) => !fresh.has(keyOf(row)) && (cursor === null || row.scheduleTime < last)).map(keyOf));
    return { ...before, ...base, cursor: before.cursor, gone, rows: before.rows.map((row) => fresh.get(keyOf(row)) ?? row), waiting: rows.filter((row) => !known.has(keyOf(row))) };
  }, { everyMs: EVERY_MS });
  const next = async () => {
    setMore(true);
    try {
      const answer = await readPage(query, list.data?.cursor ?? null);
      list.edit((before) => ({ ...before, cursor: answer.cursor, lookedAt: before.lookedAt + answer.lookedAt, rows: [...before.rows, ...answer.rows.filter((row) => !before.rows.some((each) => keyOf(each) === keyOf(row)))] }));
    } catch (error) {
      announce(`The next page could not be read: ${/** @type {Error} */ (error).message}`);
    } finally {
      setMore(false);
    }
  };
  const renew = () => list.edit((data) => ({
    ...data, gone: new Set(), waiting: [],
    rows: [...data.rows.filter((row) => !data.gone.has(keyOf(row))), ...data.waiting].sort((a, b) => a.scheduleTime - b.scheduleTime),
  }));
  const rows = (list.data?.rows ?? []).map((row) => (list.data?.gone.has(keyOf(row)) ? { ...row, status: "left the queue" } : row));
  const chosen = rows.filter((row) => selected.has(keyOf(row)));
  const acting = chosen.filter((row) => row.jobId === undefined);
  const bulkActions = /** @type {[Action, string, string, string | string[]][]} */ ([
    [CANCEL, "Cancel…", "Cancel all…", "cancel"],
    [FIRE, "Fire now…", "Fire all now…", ["operate", "create"]],
  ]).map(([action, text, allText, right]) => /** @type {BulkAction} */ ({
    text, allText,
    offReason: acting.map((row) => whyNotAllowed(me, right, { client: row.clientId })).find(Boolean) ?? (acting.length === 0 ? "runs of jobs are stopped at their job" : null),
    // The list has covered clients alone.
    offReasonAll: whyNotAllowed(me, right),
    onClick: (all) => setBulk({
      action, items: all ? null : acting, scope: all ? filterText(query, zone) : "selected schedules",
      list: all ? {
        keyOf, read: (cursor, signal) => readPage(query, cursor, signal), takes: (row) => row.jobId === undefined,
        leftOutText: (count) => `Left out: ${plural(count, "run of a job", "runs of jobs")}. A run is stopped or begun at its job.`,
      } : undefined,
    }),
  }));
  const waiting = (list.data?.waiting.length ?? 0) + (list.data?.gone.size ?? 0);
  return html`
    <h1 tabindex="-1">Upcoming</h1>
    <${Filters} params=${params} />
    <${View} of=${list}>${list.data && html`
      <${AsOf} of=${list} live readUnits=${list.data.units} />
      ${waiting > 0 && html`<p class="waiting"><button type="button" onClick=${renew}>${[list.data.waiting.length > 0 && `${list.data.waiting.length} new`, list.data.gone.size > 0 && `${list.data.gone.size} gone`].filter(Boolean).join(", ")}, show</button></p>`}
      ${rows.length > 0 && html`<${ActionBar} selected=${chosen.length} actions=${bulkActions} onNone=${() => setSelected(new Set())} />
        <${Table} caption="What is due next" columns=${COLUMNS} rows=${rows} keyOf=${keyOf} selected=${selected} onSelect=${setSelected} />`}
      ${rows.length === 0 && list.data.cursor === null && html`<${EmptyState} title="Nothing is due."><p>${Object.values(query).some(Boolean) ? html`No pending schedule matches. <a href=${href("/upcoming")}>Clear the filters</a>` : html`No schedule is pending. <a href=${href("/new")}>Create one</a>`}</p><//>`}
      ${list.data.cursor && html`<div class="more">${rows.length === 0 && html`<p role="status">Looked at ${plural(list.data.lookedAt, "row")}: none matches so far.</p>`}
        <button type="button" onClick=${next} disabled=${more}>${more ? "Reading…" : rows.length === 0 ? "Go on" : "Show more"}</button></div>`}`}<//>
    ${bulk && html`<${BulkDialog} ...${bulk} onClose=${(done) => {
      setBulk(null);
      if (done) {
        setSelected(new Set());
        list.refresh();
      }
    }} />`}`;
}

/** @typedef {{clientId: string | null, topic: string | null, dueFrom: string | null, dueTo: string | null}} Query */

/** @param {Query} query @param {string | null} cursor @param {AbortSignal} [signal] */
async function readPage(query, cursor, signal) {
  const { data, readUnits } = await call("GET", "/upcoming", { query: { ...query, limit: PAGE, cursor }, signal });
  return { rows: data.schedules, cursor: data.cursor, lookedAt: data.lookedAt, units: readUnits };
}

/** @param {Query} query @param {string} zone */
function filterText({ clientId, topic, dueFrom, dueTo }, zone) {
  const time = (/** @type {string} */ ms) => wallText(Number(ms), zone);
  const filters = [topic && `for the topic ${topic}`, dueFrom && `due from ${time(dueFrom)}`, dueTo && `due before ${time(dueTo)}`].filter(Boolean);
  return `all pending schedules of ${clientId || "every client that you may see"}${filters.length ? `, ${filters.join(", ")}` : ""}${dueFrom || dueTo ? ` (${zone})` : ""}`;
}

/** @param {{params: URLSearchParams}} props */
function Filters({ params }) {
  const zone = useZone();
  const start = useMemo(() => {
    const wall = (/** @type {string} */ name) => (/^\d+$/.test(params.get(name) ?? "") ? wallInput(Number(params.get(name)), zone) : "");
    return { client: params.get("client") ?? "", topic: params.get("topic") ?? "", from: wall("from"), to: wall("to") };
  }, [params, zone]);
  const [values, setValues] = useState(start);
  useEffect(() => setValues(start), [start]);
  const set = (/** @type {keyof typeof values} */ name) => (/** @type {string} */ value) => setValues({ ...values, [name]: value });
  const instant = (/** @type {string} */ wall) => instantOf({ wall, zone, choice: 0 });
  return html`<form class="filters" aria-label="Filters" onSubmit=${(event) => {
    event.preventDefault();
    setParams({ client: values.client.trim(), topic: values.topic.trim(), from: instant(values.from), to: instant(values.to) }, { replace: false });
  }}>
    <${ClientField} id="client" value=${values.client} onInput=${set("client")} required=${false} />
    <${TextField} id="topic" label="Topic" value=${values.topic} onInput=${set("topic")} />
    <${TextField} id="from" type="datetime-local" step="1" label=${`Due from (${zone})`} value=${values.from} onInput=${set("from")} hint=${wallHint(values.from, zone)} />
    <${TextField} id="to" type="datetime-local" step="1" label=${`Due before (${zone})`} value=${values.to} onInput=${set("to")} hint=${wallHint(values.to, zone)} />
    <div class="buttons"><button type="submit" class="primary">Show</button></div>
  </form>`;
}
