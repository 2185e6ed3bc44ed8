/** One schedule: its state and why, its content, what happened to it, and what can be done with it. */
import { html, useEffect, useState } from "../lib.js";
import { CANCEL, FIRE, RETRY } from "../parts/actions.js";
import { BulkDialog } from "../parts/bulk.js";
import { Change } from "../parts/change.js";
import { ActionButton, curlText } from "../parts/form.js";
import { Bytes, Json, memberText, pretty } from "../parts/json.js";
import { RecordPlace, TopicName, TraceLink } from "../parts/links.js";
import { PauseText, warnedOf } from "../parts/paused.js";
import { AsOf, View } from "../parts/states.js";
import { Table } from "../parts/table.js";
import { Copy, SafeText, Status, plural } from "../parts/text.js";
import { Time, lengthText } from "../parts/time.js";
import { ApiError, call, fitsPath, schedulePath } from "../state/api.js";
import { now } from "../state/clock.js";
import { jsonText } from "../state/exact.js";
import { useResource } from "../state/poll.js";
import { useMe, whyNotAllowed } from "../state/session.js";
import { href } from "../state/url.js";

/** @import { Action, BulkRequest } from "../parts/bulk.js" */
/** @import { Entry } from "../parts/change.js" */
/** @import { Column } from "../parts/table.js" */

const EVERY_MS = 5_000;
/** Why it waits costs up to 30 read units, so it is asked less often; what has ended rarely changes any more. */
const WHY_MS = 15_000;
const ENDED_MS = 60_000;
const TABS = [["", "Overview"], ["content", "Content"], ["history", "History"], ["curl", "curl"]];

/** @typedef {(Api.WhyDocument & {units: number | null}) | {reason: null, status?: undefined}} WhyAnswer `reason` null: the node says nothing */

/** @param {{params: URLSearchParams}} props */
export function SchedulePage({ params }) {
  const client = params.get("client") ?? "";
  const key = params.get("key") ?? "";
  const tab = params.get("tab") ?? "";
  const me = useMe();
  const [bulk, setBulk] = useState(/** @type {BulkRequest | null} */ (null));
  const [change, setChange] = useState(/** @type {"move" | "change" | null} */ (null));
  const [pendingSeen, setPendingSeen] = useState(true);
  const one = useResource(client && key ? JSON.stringify(["schedule", client, key]) : null, (signal) => read(client, key, signal), { everyMs: pendingSeen ? EVERY_MS : ENDED_MS });
  const why = useResource(client && key && fitsPath(key) ? JSON.stringify(["why", client, key]) : null, /** @returns {Promise<WhyAnswer>} */ async (signal) => {
    try {
      const answer = await call("GET", schedulePath(client, key, "/why"), { signal });
      return { ...answer.data, units: answer.readUnits };
    } catch (error) {
      // The schedule itself says that there is none; a node that does not know why yet says nothing.
      if (error instanceof ApiError && error.status === 404) return { reason: null };
      throw error;
    }
  }, { everyMs: pendingSeen ? WHY_MS : 0 });
  const status = one.data?.schedule.status;
  useEffect(() => {
    if (status === undefined) return;
    setPendingSeen(status === "pending");
    // The reason goes with the state.
    if (why.data && why.data.status !== undefined && why.data.status !== status) why.refresh();
  }, [status]);
  if (!client || !key) return html`<h1 tabindex="-1">Schedule</h1><p>The address names no schedule. <a href=${href("/schedules")}>Schedules</a></p>`;
  const schedule = one.data?.schedule;
  const link = (/** @type {string} */ name) => href("/schedule", { client, key, tab: name });
  const held = why.data?.reason && why.data.paused ? [why.data.paused] : [];
  const begin = (/** @type {Action} */ action) => setBulk({ action: action === FIRE ? warnedOf(action, held) : action, items: [{ ...schedule, clientId: client, scheduleKey: key }], scope: html`<code><${SafeText} text=${`${client}/${key}`} /></code>` });
  const refresh = () => Promise.all([one.refresh(), why.refresh()]);
  return html`
    <p class="crumbs"><a href=${href("/schedules", { client })}>${client}</a> /</p>
    <div class="head"><h1 tabindex="-1"><${SafeText} text=${key} /></h1>
      ${schedule && html`<${Actions} schedule=${schedule} me=${me} client=${client} pathless=${!fitsPath(key)} onAct=${begin} onChange=${setChange} />`}</div>
    <${View} of=${one} offHint=${null}>
      ${one.data && schedule && html`
        <${AsOf} of=${one} live readUnits=${one.data.units} />
        <${Why} why=${why.data} schedule=${schedule} />
        <nav class="tabs" aria-label="Parts of this schedule">${TABS.map(([name, text]) =>
          html`<a href=${link(name)} aria-current=${tab === name ? "page" : undefined}>${text}</a>`)}</nav>
        ${tab === "" && html`<${Overview} schedule=${schedule} client=${client} entry=${one.data} />`}
        ${tab === "content" && html`<${Content} entry=${one.data} schedule=${schedule} name=${key} />`}
        ${tab === "history" && html`<${History} client=${client} keyName=${key} />`}
        ${tab === "curl" && html`<${Curl} entry=${one.data} client=${client} keyName=${key} />`}`}
    <//>
    ${bulk && html`<${BulkDialog} ...${bulk} onClose=${(done) => {
      setBulk(null);
      if (done) refresh();
    }} />`}
    ${change && html`<${Change} what=${change} entry=${one.data} client=${client} keyName=${key} onClose=${(done) => {
      setChange(null);
      if (done) refresh();
    }} />`}
  `;
}

/**
 * A schedule, and its content as it was written.
 * @param {string} client @param {string} key @param {AbortSignal} signal
 * @returns {Promise<Entry & {units: number | null}>}
 */
async function read(client, key, signal) {
  if (fitsPath(key)) {
    const answer = await call("GET", schedulePath(client, key), { signal });
    return { schedule: answer.data, etag: /** @type {string} */ (answer.etag), data: memberText(answer.text, ["taskData"]), units: answer.readUnits };
  }
  const answer = await call("POST", "/schedules/get", { body: { schedules: [{ clientId: client, scheduleKey: key }] }, signal });
  const [result] = /** @type {[Api.ItemDocument]} */ (answer.data.results);
  if (result.status !== 200) throw new ApiError({ status: result.status, problem: /** @type {any} */ (result) });
  return {
    schedule: result.schedule, etag: `"${result.schedule.version}"`, units: answer.readUnits,
    data: memberText(answer.text, ["results", 0, "schedule", "taskData"]),
  };
}

/**
 * @param {{schedule: Api.ScheduleDocument, me: Api.MeDocument | null, client: string, pathless: boolean,
 *          onAct: (action: Action) => void, onChange: (what: "move" | "change") => void}} props
 */
function Actions({ schedule, me, client, pathless, onAct, onChange }) {
  const pending = schedule.status === "pending" ? null : `it is ${schedule.status}`;
  const failed = schedule.status === "failed" ? null : "only what has failed can be retried";
  const byPath = pathless ? "a browser cannot name this key in a path; use a batch with curl" : null;
  const create = whyNotAllowed(me, "create", { client });
  const operate = whyNotAllowed(me, ["operate", "create"], { client });
  return html`<div class="buttons" role="group" aria-label="Actions">
    ${schedule.status === "failed"
      ? html`<${ActionButton} className="primary" offReason=${operate ?? failed} data-actions onClick=${() => onAct(RETRY)}>Retry…<//>`
      : html`
        <${ActionButton} offReason=${create ?? pending ?? byPath} data-actions onClick=${() => onChange("move")}>Move…<//>
        <${ActionButton} offReason=${create ?? pending ?? byPath} onClick=${() => onChange("change")}>Change…<//>
        <${ActionButton} offReason=${operate ?? pending} onClick=${() => onAct(FIRE)}>Fire now…<//>
        <${ActionButton} offReason=${whyNotAllowed(me, "cancel", { client }) ?? pending} onClick=${() => onAct(CANCEL)}>Cancel…<//>`}
    <a class="button" href=${href("/new", { client, from: schedule.scheduleKey })}>Copy as new</a>
  </div>`;
}

/** @type {Record<string, string>} */
const WHY_CLASS = { paused: "warn", shard_without_owner: "bad", shard_behind: "warn", destination_waits: "warn", retry: "warn" };

/** @param {{why: WhyAnswer | null, schedule: Api.ScheduleDocument}} props */
function Why({ why, schedule }) {
  const state = html`<${Status} value=${schedule.status} />`;
  if (!why?.reason) {
    return html`<section class="notice why" aria-label="State"><p>${state} ${schedule.status === "pending" && html`· due <${Time} ms=${schedule.scheduleTime} />`}</p><${End} schedule=${schedule} /></section>`;
  }
  return html`<section class=${`notice why ${WHY_CLASS[why.reason] ?? (why.paused ? "warn" : "")}`} aria-label="State, and why">
    <p>${state} · <strong><${SafeText} text=${why.text} /></strong></p>
    ${why.advice && html`<p><${SafeText} text=${why.advice} /></p>`}
    ${why.reason === "not_due" && html`<p>Due <${Time} ms=${why.scheduleTime} /></p>`}
    ${why.paused && html`<p><${PauseText} pause=${why.paused} /></p>`}
    ${why.lagMs !== undefined && html`<p>Its shard is ${lengthText(why.lagMs)} behind. <a href=${href("/cluster", { shard: why.shard })}>Shard ${why.shard}</a></p>`}
    ${why.destination && html`<p>${why.destination.topic}: ${String(why.destination.reason).replaceAll("_", " ")}${why.destination.since !== undefined && html` since <${Time} ms=${why.destination.since} />`}${why.destination.nextProbeAt !== undefined && html`; next try <${Time} ms=${why.destination.nextProbeAt} />`}</p>`}
    ${why.retry && html`<p>${plural(why.retry.attempts, "attempt")} so far${why.retry.lastRefusal !== undefined && html`, the last refused for <strong><${SafeText} text=${why.retry.lastRefusal} /></strong>`}; next <${Time} ms=${why.retry.nextAt} /></p>`}
    ${why.behind && html`<p>First of its lane: ${why.behind.scheduleKey === undefined
      ? "another client's schedule"
      : why.behind.jobId !== undefined
        ? html`<a href=${href("/job", { client: why.behind.clientId, job: why.behind.jobId })}><${SafeText} text=${why.behind.jobId} /></a>`
        : html`<a href=${href("/schedule", { client: why.behind.clientId, key: why.behind.scheduleKey })}><${SafeText} text=${`${why.behind.clientId}/${why.behind.scheduleKey}`} /></a>`}, due <${Time} ms=${why.behind.scheduleTime} /></p>`}
    ${why.lookedAtAll === false && html`<p class="muted">Only the first ${plural(why.lookedAt, "row")} of its shard ${why.lookedAt === 1 ? "was" : "were"} looked at.</p>`}
    <${End} schedule=${schedule} />
  </section>`;
}

/** @param {{schedule: Api.ScheduleDocument}} props */
function End({ schedule }) {
  const { delivered, failed } = schedule;
  return html`
    ${delivered && html`<p>Delivered <${Time} ms=${delivered.at} />, ${lengthText(delivered.latenessMs)} after its time, to <${Place} of=${delivered} /></p>`}
    ${failed && html`<p>Given up <${Time} ms=${failed.at} /> after ${plural(failed.attempts, "attempt")}: <strong><${SafeText} text=${failed.reason} /></strong>${failed.lastRefusal !== undefined && html`, the last refused for <strong><${SafeText} text=${failed.lastRefusal} /></strong>`} · <a href=${href("/dead-letters")}>Dead letters</a></p>`}`;
}

/** @param {{of: Api.DeliveredDocument}} props */
const Place = ({ of }) => html`<${RecordPlace} topic=${of.topic} partition=${of.partition} offset=${of.offset} />`;

/** @param {{schedule: Api.ScheduleDocument, client: string, entry: Entry}} props */
function Overview({ schedule, client, entry }) {
  const { delivery = /** @type {Partial<Api.DeliveryDocument>} */ ({}), delivered, failed } = schedule;
  const headers = Object.entries(delivery.headers ?? {});
  return html`<div class="columns">
    <section class="card" aria-labelledby="facts-title"><h2 id="facts-title">What was asked for</h2>
      <dl class="facts">
        <dt>Due</dt><dd><${Time} ms=${schedule.scheduleTime} form="both" /></dd>
        <dt>Topic</dt><dd><${TopicName} topic=${delivery.topic} /></dd>
        <dt>Ordering key</dt><dd><${SafeText} text=${schedule.orderingKey ?? "–"} />${schedule.orderingKey === schedule.scheduleKey && html` <span class="muted">(its key)</span>`}</dd>
        <dt>Guarantee</dt><dd>${(delivery.guarantee ?? "–").replaceAll("_", " ")}</dd>
        ${delivery.deadline !== undefined && html`<dt>Late from</dt><dd>${lengthText(delivery.deadline)} after it is due: ${(delivery.onLate ?? "deliver").replaceAll("_", " ")}</dd>`}
        ${delivery.retry && html`<dt>Retries</dt><dd>${plural(delivery.retry.attempts, "attempt")}, ${lengthText(delivery.retry.initialMs)} to ${lengthText(delivery.retry.maxMs)} apart</dd>`}
        <dt>Delivery id</dt><dd><code>${schedule.deliveryId ?? "–"}</code>${schedule.deliveryId && html` <${Copy} text=${schedule.deliveryId} />`}</dd>
        <dt>Version</dt><dd>${schedule.version}</dd>
        <dt>Shard</dt><dd><a href=${href("/cluster", { shard: schedule.shard })}>${schedule.shard}</a></dd>
        <dt>Content</dt><dd><a href=${href("/schedule", { client, key: schedule.scheduleKey, tab: "content" })}>${entry.data === null ? "none shown" : `${plural(entry.data.length, "character")} of JSON`}, ${plural(headers.length, "header")}</a></dd>
      </dl></section>
    <section class="card" aria-labelledby="line-title"><h2 id="line-title">What happened</h2>
      <ol class="timeline">
        ${schedule.createdAt !== undefined && html`<li><strong>Accepted</strong><br /><${Time} ms=${schedule.createdAt} /></li>`}
        ${schedule.version > 1 && html`<li><strong>Changed</strong><br />now version ${schedule.version}; <a href=${href("/schedule", { client, key: schedule.scheduleKey, tab: "history" })}>the history</a> has each time that it was moved from, and <a href=${href("/activity", { client, key: schedule.scheduleKey })}>Activity</a> when and by whom, while it is kept</li>`}
        <li class=${schedule.status === "pending" && schedule.scheduleTime > now() ? "ahead" : ""}><strong>Due</strong><br /><${Time} ms=${schedule.scheduleTime} /></li>
        ${delivered && html`<li class="good"><strong>Delivered</strong> ${lengthText(delivered.latenessMs)} later<br /><${Time} ms=${delivered.at} /><br /><${Place} of=${delivered} /></li>`}
        ${schedule.status === "pending" && schedule.scheduleTime <= now() && html`<li class="ahead"><strong>Not delivered yet</strong><br />above is why</li>`}
        ${failed && html`<li class="bad"><strong>Given up</strong>: <${SafeText} text=${failed.reason} />, ${plural(failed.attempts, "attempt")}<br /><${Time} ms=${failed.at} /></li>`}
        ${schedule.status === "cancelled" && html`<li class="bad"><strong>Cancelled</strong><br /><a href=${href("/schedule", { client, key: schedule.scheduleKey, tab: "history" })}>when</a></li>`}
      </ol></section>
  </div>`;
}

/** @param {{entry: Entry, schedule: Api.ScheduleDocument, name: string}} props */
export function Content({ entry, schedule, name }) {
  const headers = Object.entries(schedule.delivery?.headers ?? {});
  return html`<section class="card" aria-labelledby="data-title"><h2 id="data-title">Content</h2>
      <${TaskData} text=${entry.data} encoding=${schedule.taskDataEncoding} redacted=${schedule.redacted} name=${name} /></section>
    <section class="card" aria-labelledby="headers-title"><h2 id="headers-title">Headers</h2>
      <${Headers} headers=${headers} /></section>`;
}

/** @param {{text: string | null, encoding?: string, redacted?: boolean, name?: string}} props */
export function TaskData({ text, encoding, redacted, name = "content" }) {
  if (redacted) return html`<p class="muted">Content is not shown to you.</p>`;
  if (text === null) return html`<p class="muted">The stored content could not be read.</p>`;
  if (encoding === "base64") return html`<${Bytes} base64=${JSON.parse(text)} />`;
  return html`<${Json} text=${text} name=${`${name}.json`} />`;
}

/** @param {{headers: [string, string | null][]}} props */
export function Headers({ headers }) {
  if (headers.length === 0) return html`<p class="muted">None.</p>`;
  return html`<dl class="facts">${headers.map(([name, value]) => html`<dt><code><${SafeText} text=${name} /></code></dt>
    <dd>${name.toLowerCase() === "traceparent" && value !== null ? html`<${TraceLink} traceparent=${value} />` : value === null ? html`<span class="muted">not shown to you</span>` : html`<code><${SafeText} text=${value} lines /></code>`}</dd>`)}</dl>`;
}

/** @param {{client: string, keyName: string}} props */
function History({ client, keyName }) {
  const past = useResource(JSON.stringify(["history", client, keyName]), async (signal) => {
    if (!fitsPath(keyName)) throw new ApiError({ status: 404, problem: { title: "No history", detail: "A browser cannot name this key in a path; ask with curl --path-as-is." } });
    const answer = await call("GET", schedulePath(client, keyName, "/history"), { query: { taskData: "text" }, signal });
    return { rows: answer.data.schedules.map((row, number) => ({ ...row, number })), cursor: answer.data.cursor, units: answer.readUnits };
  });
  /** @type {Column<Api.PastDocument>[]} */
  const all = [
    { id: "ended", label: "Ended", head: true, cell: (row) => html`<${Time} ms=${row.endedAt} />` },
    { id: "status", label: "As", cell: (row) => html`<${Status} value=${row.status} />` },
    { id: "due", label: "Was due", cell: (row) => html`<${Time} ms=${row.scheduleTime} />` },
    { id: "where", label: "Where, or why", cell: (row) => row.delivered ? html`<${Place} of=${row.delivered} />, ${lengthText(row.delivered.latenessMs)} late`
      : row.failed ? html`<${SafeText} text=${row.failed.reason} />, ${plural(row.failed.attempts, "attempt")}`
        : row.movedTo !== undefined ? html`moved to <${Time} ms=${row.movedTo} />` : "" },
    { id: "topic", label: "Topic", cell: (row) => row.delivery?.topic ?? "–" },
    { id: "version", label: "Version", className: "number", cell: (row) => row.version ?? "–" },
  ];
  // Of what was moved away the service keeps no content: a history of such rows alone has neither topics nor versions.
  const columns = past.data?.rows.some((row) => row.version !== undefined) ? all : all.filter(({ id }) => !["topic", "version"].includes(id));
  return html`<${View} of=${past}><${AsOf} of=${past} readUnits=${past.data?.units} />
    ${past.data !== null && past.data.rows.length > 0
      ? html`<${Table} caption=${`All that the key ${keyName} had, newest first`} columns=${columns} rows=${past.data.rows} keyOf=${(/** @type {{number: number}} */ row) => `${row.number}`} />
        ${past.data.cursor && html`<p class="muted">Only the newest ${past.data.rows.length} are shown.</p>`}`
      : html`<p class="muted">Nothing has ended under this key, or its retention has.</p>`}
  <//>`;
}

/** @param {{entry: Entry, client: string, keyName: string}} props */
function Curl({ entry, client, keyName }) {
  const path = `${schedulePath(client, keyName)}`;
  const create = createText(entry.schedule, entry.data);
  return html`<div class="view">
    ${[["Show it", curlText("GET", path)], ["Why it waits", curlText("GET", `${path}/why`)], ["Cancel it", curlText("DELETE", path)], ["Create the same", curlText("POST", "/schedule", create)]].map(([title, text]) =>
      html`<section class="card"><div class="head"><h2>${title}</h2><${Copy} text=${text} /></div><pre tabindex="0" role="group" aria-label=${title}><${SafeText} text=${text} lines /></pre></section>`)}
  </div>`;
}

/**
 * The create that makes a schedule again: JSON with the content as it was written.
 * @param {Api.ScheduleDocument} schedule @param {string | null} data
 */
export function createText(schedule, data) {
  const { clientId, scheduleKey, orderingKey, scheduleTime, delivery, taskDataEncoding } = schedule;
  return withData({
    clientId, scheduleKey, ...(orderingKey !== scheduleKey ? { orderingKey } : {}), scheduleTime,
    ...(taskDataEncoding ? { taskDataEncoding } : {}), delivery,
  }, data);
}

/** A document as JSON, with a text as its `taskData`; null leaves it out. @param {object} document @param {string | null} data */
export function withData(document, data) {
  const text = jsonText(document);
  const whole = data === null ? text : `${text.slice(0, -1)}${text === "{}" ? "" : ","}"taskData":${data}}`;
  try {
    return pretty(whole);
  } catch {
    return whole; // As typed, and wrong: the service says where.
  }
}
