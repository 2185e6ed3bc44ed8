/** Who does the work: shards and their owners. */
import { html, useEffect, useRef, useState } from "../lib.js";
import { Dialog } from "../parts/dialog.js";
import { ActionButton, REASON_CHARS_MAX, TextField, useSending } from "../parts/form.js";
import { AsOf, Details, View } from "../parts/states.js";
import { Table } from "../parts/table.js";
import { SafeText, plural } from "../parts/text.js";
import { Time, lengthText } from "../parts/time.js";
import { call } from "../state/api.js";
import { useResource } from "../state/poll.js";
import { useMe, whyNotAllowed } from "../state/session.js";

/** @import { Column } from "../parts/table.js" */

const EVERY_MS = 10_000;
export const BEHIND_MS = 5_000;

/** @param {Api.ShardDocument} row @returns {[keyof typeof MARKS, string]} */
export function shardState(row) {
  if (row.problem) return ["bad", "cannot be read"];
  if (row.owner === undefined) return ["bad", "no owner"];
  if (row.fencedAt !== undefined) return ["warn", "owner fenced"];
  if (row.lagMs > BEHIND_MS) return ["warn", row.oldestPaused ? "paused" : "behind"];
  return ["good", "fires"];
}
const MARKS = { good: "●", warn: "◆", bad: "▲" };
const LEVELS = ["bad", "warn", "good"];

/** Shards that do not fire first, the furthest behind of them on top; the others by their number. @param {Api.ShardDocument[]} rows */
function worstFirst(rows) {
  const level = (/** @type {Api.ShardDocument} */ row) => LEVELS.indexOf(shardState(row)[0]);
  const lag = (/** @type {Api.ShardDocument} */ row) => (shardState(row)[0] === "good" ? 0 : row.lagMs);
  return [...rows].sort((a, b) => level(a) - level(b) || lag(b) - lag(a) || a.shard - b.shard);
}

/** @param {{params: URLSearchParams}} props */
export function ClusterPage({ params }) {
  const marked = params.get("shard");
  const me = useMe();
  const [fence, setFence] = useState(/** @type {Api.ShardDocument | null} */ (null));
  const order = useRef(/** @type {number[] | null} */ (null));
  const [, orderAnew] = useState(0);
  const place = (/** @type {Api.ShardDocument} */ row) => /** @type {number[]} */ (order.current).indexOf(row.shard);
  const shards = useResource("shards", async (signal) => (await call("GET", "/admin/shards", { signal })).data, { everyMs: EVERY_MS });
  const keptFrom = useRef(shards.asOf);
  const offReason = whyNotAllowed(me, "admin");
  const there = shards.data !== null;
  useEffect(() => {
    if (there && marked) document.querySelector("tr[aria-current]")?.scrollIntoView({ block: "center" });
  }, [there, marked]);
  /** @type {Column<Api.ShardDocument>[]} */
  const columns = [
    { id: "shard", label: "Shard", head: true, cell: (row) => row.shard },
    { id: "state", label: "State", cell: (row) => {
      const [level, text] = shardState(row);
      return html`<span class=${`status status-${level}`}><span aria-hidden="true">${MARKS[level]} </span>${text}</span>`;
    } },
    { id: "owner", label: "Owner", className: "key", cell: (row) => row.node ?? "–" },
    { id: "epoch", label: "Take-overs", className: "number", cell: (row) => row.epoch ?? "–" },
    { id: "lag", label: "Lag", className: "number", cell: (row) => lengthText(row.lagMs) },
    { id: "oldest", label: "Oldest due", cell: (row) => (row.oldestDue === undefined ? "–" : html`<${Time} ms=${row.oldestDue} />`) },
    { id: "frontier", label: "Read up to", cell: (row) => (row.frontier === undefined ? "–" : html`<${Time} ms=${row.frontier} form="relative" />`) },
    { id: "problem", label: "Problem", cell: (row) => (row.problem ? html`<${SafeText} text=${row.problem} />` : "") },
    { id: "act", label: "Action", cell: (row) => html`<${ActionButton} className="small" offReason=${offReason ?? (row.owner === undefined ? "it has no owner" : null)} label=${`Fence shard ${row.shard}`} onClick=${() => setFence(row)}>Fence…<//>` },
  ];
  const sorted = worstFirst(shards.data?.shards ?? []);
  // The order is that of the first answer of this visit, so that no row moves under the hand that is about to fence it.
  if (order.current === null && shards.asOf !== keptFrom.current) order.current = sorted.map((row) => row.shard);
  const rows = order.current === null ? sorted : [...sorted].sort((a, b) => place(a) - place(b));
  const firing = rows.findIndex((row) => shardState(row)[0] === "good");
  const below = firing < 0 ? 0 : rows.slice(firing).filter((row) => shardState(row)[0] !== "good").length;
  const shown = rows.some((row) => row.problem) ? columns : columns.filter((each) => each.id !== "problem");
  const without = rows.filter((row) => row.owner === undefined).length;
  return html`
    <h1 tabindex="-1">Cluster</h1>
    <${Nodes} />
    <section class="form" aria-labelledby="shards-title"><h2 id="shards-title">Shards</h2>
      <${View} of=${shards}>${shards.data && html`<${AsOf} of=${shards} live />
        <p>${plural(rows.length, "shard")}, ${without === 0 ? "each has an owner" : html`<strong class="status-bad">▲ ${without} without owner</strong>`}; the furthest behind is ${lengthText(Math.max(0, ...rows.map((row) => row.lagMs)))} late.</p>
        ${below > 0 && html`<p class="waiting"><button type="button" onClick=${() => {
          order.current = sorted.map((row) => row.shard);
          orderAnew((count) => count + 1);
        }}>${plural(below, "shard")} further down ${below === 1 ? "does" : "do"} not fire as ${below === 1 ? "it" : "they"} should, put ${below === 1 ? "it" : "them"} first</button></p>`}
        <${Table} caption="Shards" columns=${shown} rows=${rows} keyOf=${(/** @type {Api.ShardDocument} */ row) => String(row.shard)} marked=${marked} />`}<//></section>
    ${fence && html`<${Fence} row=${fence} rows=${rows} onClose=${(done) => {
      setFence(null);
      if (done) shards.refresh();
    }} />`}`;
}

/** @type {Column<Api.NodeDocument>[]} */
const NODE_COLUMNS = [
  { id: "node", label: "Process, version", head: true, className: "key", cell: (row) => html`<${SafeText} text=${row.node} /><br /><span class="muted">${row.version}</span>` },
  { id: "state", label: "State", cell: (row) => {
    const [level, text] = /** @type {[keyof typeof MARKS, string]} */ (row.gone ? ["bad", "gone"] : row.kafka || row.store ? ["bad", row.kafka ? `Kafka: ${row.kafka}` : `store: ${row.store}`] : row.member === false && row.fires ? ["warn", "not in the group"] : ["good", "works"]);
    return html`<span class=${`status status-${level}`}><span aria-hidden="true">${MARKS[level]} </span><${SafeText} text=${text} /></span>`;
  } },
  { id: "role", label: "Role", cell: (row) => [row.accepts && "accepts", row.fires && "fires"].filter(Boolean).join(", ") || row.role },
  { id: "since", label: "Since", cell: (row) => html`<${Time} ms=${row.since} form="relative" />` },
  { id: "seen", label: "Seen", cell: (row) => html`<${Time} ms=${row.seenAt} form="relative" />` },
  { id: "shards", label: "Shards", className: "number", cell: (row) => (row.assigned !== undefined && row.assigned !== row.shards ? `${row.shards} of ${row.assigned}` : row.shards) },
  { id: "created", label: "Created/s", className: "number", cell: (row) => rate(row.createdPerSecond) },
  { id: "delivered", label: "Delivered/s", className: "number", cell: (row) => rate(row.deliveredPerSecond) },
  { id: "lag", label: "Loop lag", className: "number", cell: (row) => (row.loopLagMs === undefined ? "–" : `${Math.round(row.loopLagMs)} ms`) },
  { id: "skew", label: "Clock", className: "number", cell: (row) => (typeof row.clockSkewMs === "number" ? `${row.clockSkewMs > 0 ? "+" : row.clockSkewMs < 0 ? "−" : ""}${Math.abs(Math.round(row.clockSkewMs))} ms` : "–") },
];
/** @param {number | undefined} value */
const rate = (value) => (value === undefined ? "–" : value < 10 ? value.toFixed(1) : Math.round(value).toLocaleString("en"));

function Nodes() {
  const nodes = useResource("nodes", async (signal) => {
    const answer = await call("GET", "/admin/nodes", { signal });
    return { ...answer.data, units: answer.readUnits };
  }, { everyMs: EVERY_MS });
  const names = new Map((nodes.data?.nodes ?? []).map((each) => [each.process, each.node]));
  return html`<section class="form" aria-labelledby="nodes-title"><h2 id="nodes-title">Processes</h2>
    <${View} of=${nodes}>${nodes.data && html`<${AsOf} of=${nodes} live readUnits=${nodes.data.units} />
      <${Table} caption="Processes" columns=${NODE_COLUMNS} rows=${nodes.data.nodes} keyOf=${(/** @type {Api.NodeDocument} */ row) => row.process} />
      ${nodes.data.membersWithoutNode?.length > 0 && html`<p class="notice warn">Kafka's group has ${plural(nodes.data.membersWithoutNode.length, "member")} that no process here is known for: ${nodes.data.membersWithoutNode.join(", ")}</p>`}
      ${nodes.data.membersUnknown && html`<p class="notice warn">The group's members are not known: <${SafeText} text=${nodes.data.membersUnknown} /></p>`}
      ${nodes.data.differences?.length > 0 && html`<section class="notice warn" aria-labelledby="differences-title"><h3 id="differences-title">Settings that differ</h3>
        <ul>${nodes.data.differences.map((each) => html`<li><code>${each.setting}</code>: ${each.processes.map((group) => group.map((id) => names.get(id) ?? id).join(", ")).join(" — unlike — ")}</li>`)}</ul></section>`}`}<//></section>`;
}

/** @param {{row: Api.ShardDocument, rows: Api.ShardDocument[], onClose: (done: boolean) => void}} props */
function Fence({ row, rows, onClose }) {
  const sending = useSending();
  const { busy, error } = sending;
  const [done, setDone] = useState(/** @type {Api.FencedDocument | null} */ (null));
  const [reason, setReason] = useState("");
  const all = rows.filter((each) => each.owner === row.owner).map((each) => each.shard);
  const send = () => sending.send(async () => {
    setDone((await call("POST", /** @type {"/admin/shards/{shard}/fence"} */ (`/admin/shards/${row.shard}/fence`), { body: { reason: reason.trim() || undefined } })).data);
  });
  return html`<${Dialog} title=${`Fence the owner of shard ${row.shard}?`} onClose=${() => onClose(done !== null)}>
    ${done === null
      ? html`<dl class="facts"><dt>Owner</dt><dd>${row.node ?? row.owner}</dd><dt>Its shards</dt><dd>${all.join(", ")}</dd></dl>
        <p>For an owner that seems stuck. It stops, and <strong>all ${all.length} of its shards</strong> change hands, mostly to the next incarnation of the same process. Nothing is lost or sent twice; delivery of these shards pauses for a moment. It cannot be taken back.</p>
        <${TextField} id="reason" label="Reason, for people" value=${reason} onInput=${setReason} error=${error?.fields.get("reason")} maxlength=${REASON_CHARS_MAX} />`
      : html`<p role="status"><strong>${done.node} is fenced.</strong> Shards ${done.shards.join(", ")} are taken over.</p>`}
    ${error && html`<div class="notice bad" role="alert"><strong>${error.problem.title}</strong><${Details} error=${error} /></div>`}
    <div class="buttons">${done === null
      ? html`<button type="button" data-focus onClick=${() => onClose(false)}>Do nothing</button><${ActionButton} className="danger" offReason=${busy ? "under way" : null} onClick=${send}>Fence it<//>`
      : html`<button type="button" onClick=${() => onClose(true)}>Close</button>`}</div>
  <//>`;
}
