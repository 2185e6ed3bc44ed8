/** Records that were given up. */
import { html, useEffect, useMemo, useState } from "../lib.js";
import { DISCARD_LETTERS, RETRY_LETTERS } from "../parts/actions.js";
import { ActionBar, BulkDialog } from "../parts/bulk.js";
import { Dialog } from "../parts/dialog.js";
import { ActionButton, announce } from "../parts/form.js";
import { Bytes, Json } from "../parts/json.js";
import { RecordPlace, TopicName } from "../parts/links.js";
import { AsOf, EmptyState, View } from "../parts/states.js";
import { Table } from "../parts/table.js";
import { SafeText, Status, plural } from "../parts/text.js";
import { Time } from "../parts/time.js";
import { call } from "../state/api.js";
import { useBlockRefresh, useResource } from "../state/poll.js";
import { useMe, whyNotAllowed } from "../state/session.js";
import { href, setParams } from "../state/url.js";
import { Headers } from "./schedule.js";

/** @import { Action, BulkAction, BulkRequest } from "../parts/bulk.js" */
/** @import { Column } from "../parts/table.js" */

/** A page of letters looks at the present state of each of their schedules. */
const EVERY_MS = 30_000;
const PAGE = 100;
/** @typedef {Api.DeadLetterDocument} Letter */
/** @typedef {{rows: Letter[], cursor: string | null, waiting: Letter[]}} Letters */

/** @param {Letter} row */
const keyOf = (row) => `${row.deadLetterTopic}/${row.partition}/${row.offset}`;

/** @param {{params: URLSearchParams}} props */
export function DeadLettersPage({ params }) {
  const me = useMe();
  const all = params.get("show") === "all";
  const [selected, setSelected] = useState(/** @type {Set<string>} */ (new Set()));
  const [bulk, setBulk] = useState(/** @type {BulkRequest | null} */ (null));
  const [more, setMore] = useState(false);
  useBlockRefresh(selected.size > 0);
  const list = useResource("dead letters", async (signal, /** @type {Letters | null} */ before) => {
    const { rows, cursor } = await readPage(null, signal);
    if (before === null) return { rows, cursor, waiting: [] };
    const fresh = new Map(rows.map((row) => [keyOf(row), row]));
    const known = new Set(before.rows.map(keyOf));
    return { ...before, rows: before.rows.map((row) => fresh.get(keyOf(row)) ?? row), waiting: before.cursor === null ? rows.filter((row) => !known.has(keyOf(row))) : [] };
  }, { everyMs: EVERY_MS });
  const next = async () => {
    setMore(true);
    try {
      const answer = await readPage(list.data?.cursor ?? null);
      list.edit((before) => ({ ...before, rows: [...before.rows, ...answer.rows], cursor: answer.cursor }));
    } catch (error) {
      announce(`The next page could not be read: ${/** @type {Error} */ (error).message}`);
    } finally {
      setMore(false);
    }
  };
  const reason = params.get("reason");
  const topic = params.get("topic");
  const read = list.data?.rows ?? [];
  const candidates = read.filter((row) => all || row.open);
  const groups = useMemo(() => groupsOf(candidates), [list.data, all]);
  const matches = (/** @type {Letter} */ row) => (!reason || row.reason === reason) && (!topic || row.topic === topic);
  const rows = candidates.filter(matches);
  useEffect(() => setSelected(new Set()), [reason, topic, all]);
  const chosen = rows.filter((row) => selected.has(keyOf(row)));
  const one = read.find((row) => keyOf(row) === params.get("letter"));
  const offReason = whyNotAllowed(me, "operate");
  const begin = (/** @type {Action} */ action, /** @type {Letter[]} */ letters) => setBulk({
    // A letter that is open has the key of its schedule.
    action, items: /** @type {any[]} */ (letters), scope: letters.length === 1 ? html`<code><${SafeText} text=${action.nameOf(/** @type {any} */ (letters[0]))} /></code>` : "selected dead letters",
  });
  const bulkActions = /** @type {[Action, string, string][]} */ ([[RETRY_LETTERS, "Retry…", "Retry all…"], [DISCARD_LETTERS, "Discard…", "Discard all…"]])
    .map(([action, text, allText]) => /** @type {BulkAction} */ ({
      text, allText, offReason: offReason ?? whyNoneOpen(chosen, "none of the selected is open"), offReasonAll: offReason ?? (list.data?.cursor === null ? whyNoneOpen(rows, "none of these is open") : null),
      onClick: (every) => every
        // The service's list has no such filters: the page applies its own.
        ? setBulk({ action, items: null, list: { keyOf, read: readPageOfNames, matches: (row) => row.open && matches(row) }, scope: filterText(reason, topic) })
        : begin(action, chosen.filter((row) => row.open)),
    }));
  /** @type {Column<Letter>[]} */
  const columns = [
    { id: "key", label: "Schedule", head: true, className: "key", cell: (row) => html`<a href=${href("/dead-letters", { ...Object.fromEntries(params), letter: keyOf(row) })}><${SafeText} text=${row.scheduleKey === undefined ? "without key" : `${row.clientId}/${row.scheduleKey}`} /></a>` },
    { id: "open", label: "State", cell: (row) => (row.open ? html`<span class="status status-bad"><span aria-hidden="true">▲ </span>open</span>` : html`<span class="status status-skipped"><span aria-hidden="true">⊘ </span>${row.discardedAt !== undefined ? "discarded" : "settled"}</span>`) },
    { id: "reason", label: "Reason", cell: (row) => row.reason !== undefined && html`<${Reason} of=${row} />` },
    { id: "topic", label: "Meant for", cell: (row) => row.topic ?? "–" },
    { id: "at", label: "Given up", className: "when", cell: (row) => html`<${Time} ms=${row.at} />` },
    { id: "attempts", label: "Attempts", className: "number", cell: (row) => row.attempts ?? "–" },
    { id: "now", label: "Under its key now", cell: (row) => (row.status ? html`<${Status} value=${row.status} />` : html`<span class="muted">none</span>`) },
  ];
  return html`
    <h1 tabindex="-1">Dead letters</h1>
    <${View} of=${list}>${list.data && html`
      <${AsOf} of=${list} live />
      <nav class="tabs" aria-label="Which"><a href=${href("/dead-letters")} aria-current=${all ? undefined : "page"}>Open</a><a href=${href("/dead-letters", { show: "all" })} aria-current=${all ? "page" : undefined}>All that are kept</a></nav>
      ${groups.length > 0 && html`<ul class="chips" aria-label="By reason and topic">
        ${(reason || topic) && html`<li><a class="chip" href=${href("/dead-letters", { show: all ? "all" : "" })}>any reason, any topic</a></li>`}
        ${groups.map((each) => html`<li><a class="chip" aria-current=${reason === each.reason && topic === each.topic ? "true" : undefined} href=${href("/dead-letters", { show: all ? "all" : "", reason: each.reason, topic: each.topic })}>
          <strong>${each.count}</strong> <${SafeText} text=${each.reason ?? "no reason"} /> · ${each.topic ?? "no topic"}</a></li>`)}</ul>`}
      ${list.data.waiting.length > 0 && html`<p class="waiting"><button type="button" onClick=${() => list.edit((data) => ({ ...data, rows: [...data.rows, ...data.waiting], waiting: [] }))}>${plural(list.data.waiting.length, "new one")}, show</button></p>`}
      ${rows.length > 0 && html`<${ActionBar} selected=${chosen.length} actions=${bulkActions} onNone=${() => setSelected(new Set())} />
        <${Table} caption="Dead letters" columns=${all ? columns : columns.filter((each) => each.id !== "open")} rows=${rows} keyOf=${keyOf} nameOf=${(/** @type {Letter} */ row) => `${row.clientId}/${row.scheduleKey}`} selected=${selected} onSelect=${setSelected} />`}
      ${rows.length === 0 && list.data.cursor === null && candidates.length > 0 && html`<${EmptyState} title="No dead letter matches the filter.">
        <p><a href=${href("/dead-letters", { show: all ? "all" : "" })}>Clear the filter</a></p><//>`}
      ${rows.length === 0 && list.data.cursor === null && candidates.length === 0 && html`<${EmptyState} title=${read.length > 0 && !all ? "No dead letter is open." : "There are no dead letters."}>
        <p>${read.length > 0 && !all ? html`${plural(read.length, "letter, settled or discarded, is", "letters, settled or discarded, are")} still kept. <a href=${href("/dead-letters", { show: "all" })}>Show them</a>` : "Nothing was given up, or its retention has ended."}</p><//>`}
      ${list.data.cursor && html`<div class="more">${rows.length === 0 && html`<p role="status">Looked at ${plural(read.length, "letter")}: none matches so far.</p>`}
        <button type="button" onClick=${next} disabled=${more}>${more ? "Reading…" : rows.length === 0 ? "Go on" : "Show more"}</button></div>`}
    `}<//>
    ${one && html`<${LetterDialog} row=${one} offReason=${offReason} onAct=${begin} onClose=${() => setParams({ letter: null })} />`}
    ${bulk && html`<${BulkDialog} ...${bulk} onClose=${(done) => {
      setBulk(null);
      if (done) {
        setSelected(new Set());
        setParams({ letter: null });
        list.refresh();
      }
    }} />`}`;
}

/** The reason, and that of the last refusal. @param {{of: Letter}} props */
const Reason = ({ of }) => html`<${SafeText} text=${of.reason ?? "no reason"} />${of.lastRefusal !== undefined && html`: <${SafeText} text=${of.lastRefusal} />`}`;

/** Why the button of an action on these is off: `text` if none is open, or null. @param {Letter[]} rows @param {string} text */
const whyNoneOpen = (rows, text) => (rows.some((row) => row.open) ? null : text);

/** @param {string | null} cursor @param {AbortSignal} [signal] */
async function readPage(cursor, signal) {
  const { data } = await call("GET", "/admin/dead-letters", { query: { limit: PAGE, cursor }, signal });
  return { rows: data.deadLetters, cursor: data.cursor };
}

/**
 * A page without contents: a list that is read to its end is kept as a whole, and contents may be large.
 * @param {string | null} cursor @param {AbortSignal} signal
 */
async function readPageOfNames(cursor, signal) {
  const { rows, cursor: next } = await readPage(cursor, signal);
  return { rows: rows.map(({ value, headers, ...row }) => row), cursor: next };
}

/** @param {string | null} reason @param {string | null} topic */
function filterText(reason, topic) {
  return html`all open dead letters${reason && html`, given up for <${SafeText} text=${reason} />`}${topic && `, meant for the topic ${topic}`}`;
}

/** @param {Letter[]} rows */
function groupsOf(rows) {
  /** @type {Map<string, {reason?: string, topic?: string, count: number}>} */
  const groups = new Map();
  for (const row of rows) {
    const key = JSON.stringify([row.reason, row.topic]);
    const group = groups.get(key) ?? { reason: row.reason, topic: row.topic, count: 0 };
    group.count += 1;
    groups.set(key, group);
  }
  return [...groups.values()].sort((a, b) => b.count - a.count).slice(0, 20);
}

/**
 * @param {{row: Letter, offReason: string | null, onClose: () => void,
 *          onAct: (action: Action, items: Letter[]) => void}} props
 */
function LetterDialog({ row, offReason, onAct, onClose }) {
  const off = offReason ?? (row.open ? null : "it is not open");
  return html`<${Dialog} wide title=${html`<${SafeText} text=${row.scheduleKey === undefined ? "A dead letter" : `${row.clientId}/${row.scheduleKey}`} />`} onClose=${onClose}>
    <dl class="facts">
      <dt>State</dt><dd>${row.open ? "open" : row.discardedAt !== undefined ? html`discarded <${Time} ms=${row.discardedAt} />` : "settled: its schedule has gone on"}</dd>
      <dt>Reason</dt><dd>${row.reason !== undefined && html`<${Reason} of=${row} />`}${row.attempts !== undefined && `, ${plural(row.attempts, "attempt")}`}</dd>
      <dt>Given up</dt><dd><${Time} ms=${row.at} /></dd>
      ${row.scheduleTime !== undefined && html`<dt>Was due</dt><dd><${Time} ms=${row.scheduleTime} /></dd>`}
      <dt>Meant for</dt><dd><${TopicName} topic=${row.topic} /></dd>
      <dt>Lies in</dt><dd><${RecordPlace} topic=${row.deadLetterTopic} partition=${row.partition} offset=${row.offset} /></dd>
      ${row.orderingKey !== undefined && html`<dt>Ordering key</dt><dd><${SafeText} text=${row.orderingKey} /></dd>`}
      <dt>Under its key now</dt><dd>${row.jobId !== undefined ? html`<a href=${href("/job", { client: row.clientId, job: row.jobId, tab: "runs" })}>job <${SafeText} text=${row.jobId} /></a>, run ${row.runId}`
        : row.status ? html`<a href=${href("/schedule", { client: row.clientId, key: row.scheduleKey })}><${Status} value=${row.status} />, version ${row.version}</a>` : "none"}</dd>
    </dl>
    ${row.value === undefined ? html`<p class="muted">Content is not shown to you.</p>` : html`<h3>Content</h3>${row.valueEncoding === "base64" ? html`<${Bytes} base64=${row.value} />` : html`<${Json} text=${row.value} name="dead-letter.json" />`}`}
    ${row.headers && html`<h3>Headers</h3><${Headers} headers=${Object.entries(row.headers)} />`}
    <div class="buttons">
      <button type="button" data-focus onClick=${onClose}>Close</button>
      <${ActionButton} offReason=${off} onClick=${() => onAct(DISCARD_LETTERS, [row])}>Discard…<//>
      <${ActionButton} className="primary" offReason=${off} onClick=${() => onAct(RETRY_LETTERS, [row])}>Retry…<//>
    </div>
  <//>`;
}
