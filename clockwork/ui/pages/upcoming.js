/** What is due next, of all clients that the reader's key covers. */
import { html, useEffect, useMemo, useState } from "../lib.js";
import { CANCEL, FIRE } from "../parts/actions.js";
import { Bulk } from "../parts/bulk.js";
import { ClientField } from "../parts/clients.js";
import { Act, TextField, say } from "../parts/form.js";
import { AsOf, Nothing, View } from "../parts/states.js";
import { Table } from "../parts/table.js";
import { plural } from "../parts/text.js";
import { instantOf, wallInput } from "../parts/time.js";
import { call } from "../state/api.js";
import { useHold, useResource } from "../state/poll.js";
import { useZone } from "../state/prefs.js";
import { missing, useMe } from "../state/session.js";
import { href, setParams } from "../state/url.js";
import { columns } from "./schedules.js";

/** @import { Action, Asked } from "../parts/bulk.js" */

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
  const [selected, setSelected] = useState(/** @type {Set<string>} */ (new Set()));
  const [bulk, setBulk] = useState(/** @type {Asked | null} */ (null));
  const [more, setMore] = useState(false);
  const key = JSON.stringify(["upcoming", query]);
  useEffect(() => setSelected(new Set()), [key]);
  useHold(selected.size > 0);
  const list = useResource(key, async (signal, /** @type {Upcoming | null} */ before) => {
    const answer = await call("GET", "/upcoming", { query: { ...query, limit: PAGE }, signal });
    const { schedules, cursor, lookedAt } = answer.data;
    const base = { cursor, lookedAt, units: answer.readUnits };
    if (before === null) return { rows: schedules, waiting: [], gone: new Set(), ...base };
    // What has left the front is due or done: it stays where it is, and says so, until the reader shows the list anew.
    const fresh = new Map(schedules.map((row) => [keyOf(row), row]));
    const known = new Set(before.rows.map(keyOf));
    const last = schedules.at(-1)?.scheduleTime ?? Infinity;
    const gone = new Set(before.rows.filter((row) => !fresh.has(keyOf(row)) && (cursor === null || row.scheduleTime < last)).map(keyOf));
    return { ...before, ...base, cursor: before.cursor, gone, rows: before.rows.map((row) => fresh.get(keyOf(row)) ?? row), waiting: schedules.filter((row) => !known.has(keyOf(row))) };
  }, { everyMs: EVERY_MS });
  const next = async () => {
    setMore(true);
    try {
      const { data } = await call("GET", "/upcoming", { query: { ...query, limit: PAGE, cursor: list.data?.cursor } });
      list.edit((before) => ({ ...before, cursor: data.cursor, lookedAt: before.lookedAt + data.lookedAt, rows: [...before.rows, ...data.schedules.filter((row) => !before.rows.some((each) => keyOf(each) === keyOf(row)))] }));
    } catch (error) {
      say(`The next page could not be read: ${/** @type {Error} */ (error).message}`);
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
  const scopeOf = (/** @type {string | string[]} */ right) => acting.map((row) => missing(me, right, { client: row.clientId })).find(Boolean) ?? (acting.length === 0 ? "runs of jobs are stopped at their job" : null);
  const begin = (/** @type {Action} */ action) => setBulk({ action, items: acting, scope: "selected schedules" });
  const waiting = (list.data?.waiting.length ?? 0) + (list.data?.gone.size ?? 0);
  return html`
    <h1 tabindex="-1">Upcoming</h1>
    <${Filters} params=${params} />
    <${View} of=${list} lookedAt=${list.data?.lookedAt}>${list.data && html`
      <${AsOf} of=${list} live readUnits=${list.data.units} />
      ${waiting > 0 && html`<p class="waiting"><button type="button" onClick=${renew}>${[list.data.waiting.length > 0 && `${list.data.waiting.length} new`, list.data.gone.size > 0 && `${list.data.gone.size} gone`].filter(Boolean).join(", ")}, show</button></p>`}
      ${rows.length > 0 && html`<div class=${`action-bar ${chosen.length ? "on" : ""}`} role="group" aria-label="Actions on the selected">
          ${chosen.length === 0 ? html`<span class="muted">Select rows to act on them.</span>` : html`<strong aria-live="polite">${chosen.length} selected</strong>
            <${Act} why=${scopeOf("cancel")} data-actions onClick=${() => begin(CANCEL)}>Cancel…<//>
            <${Act} why=${scopeOf(["operate", "create"])} onClick=${() => begin(FIRE)}>Fire now…<//>
            <button type="button" class="quiet" onClick=${() => setSelected(new Set())}>Select none</button>`}</div>
        <${Table} caption="What is due next" columns=${COLUMNS} rows=${rows} keyOf=${keyOf} selected=${selected} onSelect=${setSelected} />`}
      ${rows.length === 0 && list.data.cursor === null && html`<${Nothing} title="Nothing is due."><p>${Object.values(query).some(Boolean) ? html`No pending schedule matches. <a href=${href("/upcoming")}>Clear the filters</a>` : html`No schedule is pending. <a href=${href("/new")}>Create one</a>`}</p><//>`}
      ${list.data.cursor && html`<div class="more">${rows.length === 0 && html`<p role="status">Looked at ${plural(list.data.lookedAt, "row")}: none matches so far.</p>`}
        <button type="button" onClick=${next} disabled=${more}>${more ? "Reading…" : rows.length === 0 ? "Go on" : "Show more"}</button></div>`}`}<//>
    ${bulk && html`<${Bulk} ...${bulk} onClose=${(done) => {
      setBulk(null);
      if (done) {
        setSelected(new Set());
        list.refresh();
      }
    }} />`}`;
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
    <${TextField} id="from" type="datetime-local" step="1" label=${`Due from (${zone})`} value=${values.from} onInput=${set("from")} />
    <${TextField} id="to" type="datetime-local" step="1" label=${`Due before (${zone})`} value=${values.to} onInput=${set("to")} />
    <div class="buttons"><button type="submit" class="primary">Show</button></div>
  </form>`;
}
