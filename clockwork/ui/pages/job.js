/** One recurring job: when it fires, how its runs went, and what can be done with it. */
import { html, useState } from "../lib.js";
import { Dialog } from "../parts/dialog.js";
import { ActionButton, TextField, curlText, announce } from "../parts/form.js";
import { Json, memberText } from "../parts/json.js";
import { RecordPlace, TopicName } from "../parts/links.js";
import { PauseLines, pausesOf, usePauses } from "../parts/paused.js";
import { AsOf, Details, View } from "../parts/states.js";
import { Table } from "../parts/table.js";
import { Copy, SafeText, Status, plural } from "../parts/text.js";
import { Time, lengthText } from "../parts/time.js";
import { FireTimes, triggerWords } from "../parts/trigger.js";
import { ApiError, call, jobPath } from "../state/api.js";
import { useResource } from "../state/poll.js";
import { useMe, whyNotAllowed } from "../state/session.js";
import { href } from "../state/url.js";
import { Headers, TaskData, withData } from "./schedule.js";

/** @import { Column } from "../parts/table.js" */

const EVERY_MS = 5_000;
const TABS = [["", "Overview"], ["runs", "Runs"], ["content", "Content"], ["versions", "Versions"], ["curl", "curl"]];

/** @param {{params: URLSearchParams}} props */
export function JobPage({ params }) {
  const client = params.get("client") ?? "";
  const name = params.get("job") ?? "";
  const tab = params.get("tab") ?? "";
  const me = useMe();
  const [asked, setAsked] = useState(/** @type {keyof typeof ASKED | null} */ (null));
  const one = useResource(client && name ? JSON.stringify(["job", client, name]) : null, async (signal) => {
    const answer = await call("GET", jobPath(client, name), { query: { next: 10 }, signal });
    return { job: answer.data, etag: answer.etag, data: memberText(answer.text, ["taskData"]), units: answer.readUnits };
  }, { everyMs: EVERY_MS });
  const pauses = usePauses();
  if (!client || !name) return html`<h1 tabindex="-1">Job</h1><p>The address names no job. <a href=${href("/jobs")}>Jobs</a></p>`;
  const job = one.data?.job;
  return html`
    <p class="crumbs"><a href=${href("/jobs", { client })}>${client}</a> /</p>
    <div class="head"><h1 tabindex="-1"><${SafeText} text=${name} /></h1>${job && html`<${Actions} job=${job} me=${me} client=${client} onAsk=${setAsked} />`}</div>
    <${View} of=${one} offHint=${html`<p>Schedules that are due once work without.</p>`}>
      ${one.data && job && html`
        <${AsOf} of=${one} live readUnits=${one.data.units} />
        <${PauseLines} pauses=${pausesOf(pauses, { client, topics: [job.delivery.topic] })} />
        <section class=${`notice why ${job.status === "paused" ? "warn" : ""}`} aria-label="State"><p><${Status} value=${job.status} /> · <strong><${SafeText} text=${triggerWords(job.trigger)} /></strong></p>
          ${job.description && html`<p><${SafeText} text=${job.description} /></p>`}
          ${job.pausedSince !== undefined && html`<p>Paused since <${Time} ms=${job.pausedSince} />${job.note && html`: <${SafeText} text=${job.note} />`}</p>`}
          ${job.nextRun && html`<p>Next run <${Time} ms=${job.nextRun.dueAt} />${job.nextRun.note && html`<br /><span class="note">▲ <${SafeText} text=${job.nextRun.note} /></span>`}</p>`}
          ${job.inFlight && html`<p>Runs that may still be delivered as they were before: ${job.inFlight.map((run) => run.runId).join(", ")}</p>`}</section>
        <nav class="tabs" aria-label="Parts of this job">${TABS.map(([each, text]) => html`<a href=${href("/job", { client, job: name, tab: each })} aria-current=${tab === each ? "page" : undefined}>${text}</a>`)}</nav>
        ${tab === "" && html`<${Overview} job=${job} />`}
        ${tab === "runs" && html`<${Runs} client=${client} name=${name} topic=${job.delivery.topic} />`}
        ${tab === "content" && html`<section class="card"><h2>Content of each run</h2><${TaskData} text=${one.data.data} encoding=${job.taskDataEncoding} redacted=${job.redacted} name=${name} />
            ${job.interpolate && html`<p class="muted">Names such as <code>${"${scheduledAt}"}</code> are put in for each run.</p>`}</section>
          <section class="card"><h2>Headers</h2><${Headers} headers=${Object.entries(job.delivery.headers ?? {})} /></section>`}
        ${tab === "versions" && html`<${Versions} client=${client} name=${name} />`}
        ${tab === "curl" && html`<${Curl} job=${job} data=${one.data.data} client=${client} name=${name} />`}`}
    <//>
    ${asked && html`<${JobActionDialog} what=${asked} client=${client} name=${name} onDone=${one.refresh} onClose=${() => setAsked(null)} />`}`;
}

/**
 * @param {{job: Api.JobDocument, me: Api.MeDocument | null, client: string, onAsk: (what: keyof typeof ASKED) => void}} props
 */
function Actions({ job, me, client, onAsk }) {
  const create = whyNotAllowed(me, "create", { client });
  const cancel = whyNotAllowed(me, "cancel", { client });
  const deleted = job.status === "deleted" ? "it is deleted" : null;
  return html`<div class="buttons" role="group" aria-label="Actions">
    ${job.status === "deleted"
      ? html`<${ActionButton} className="primary" offReason=${create} data-actions onClick=${() => onAsk("restore")}>Restore…<//>`
      : html`
        <${ActionButton} offReason=${create} data-actions onClick=${() => onAsk("run")}>Run now…<//>
        ${job.status === "paused"
          ? html`<${ActionButton} className="primary" offReason=${create} onClick=${() => onAsk("resume")}>Resume…<//>`
          : html`<${ActionButton} offReason=${cancel ?? (job.status === "ended" ? "it has ended" : null)} onClick=${() => onAsk("pause")}>Pause…<//>`}
        ${create || deleted ? html`<${ActionButton} offReason=${create ?? deleted} onClick=${() => {}}>Change…<//>` : html`<a class="button" href=${href("/new-job", { client, job: job.jobId })}>Change…</a>`}
        <${ActionButton} offReason=${cancel} onClick=${() => onAsk("delete")}>Delete…<//>`}
  </div>`;
}

const ASKED = /** @type {const} */ ({
  pause: { title: "Pause", verb: "Pause it", text: "No run is armed while it is paused. Fire times that pass meanwhile are not caught up when it goes on. Resuming it needs the right create.", method: "POST", path: "/pause", said: "Paused" },
  resume: { title: "Resume", verb: "Resume it", text: "It goes on with the next fire time. What was missed is not caught up; a backfill does that: POST …/backfill, or clockwork job backfill.", method: "POST", path: "/resume", said: "Resumed" },
  run: { title: "Run now", verb: "Run it now", text: "One run at once, beside the job's own times; also while it is paused.", method: "POST", path: "/run-now", said: "A run is armed" },
  delete: { title: "Delete", verb: "Delete it", text: "No further run. The job is kept for the retention and can be restored until then.", method: "DELETE", path: "", said: "Deleted", danger: true },
  restore: { title: "Restore", verb: "Restore it", text: "The job is there again as it was, and goes on with the next fire time.", method: "POST", path: "/restore", said: "Restored" },
});

/**
 * @param {{what: keyof typeof ASKED, client: string, name: string, onDone: () => void, onClose: () => void}} props
 */
function JobActionDialog({ what, client, name, onDone, onClose }) {
  const { title, verb, text, method, path, said, danger } = /** @type {typeof ASKED[keyof typeof ASKED] & {danger?: boolean}} */ (ASKED[what]);
  const [note, setNote] = useState("");
  const [id] = useState(() => `ui-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`);
  const [error, setError] = useState(/** @type {ApiError | null} */ (null));
  const [busy, setBusy] = useState(false);
  const [answer, setAnswer] = useState(/** @type {{runId?: string, status?: string, inFlight?: Api.RunDocument[]} | null} */ (null));
  const send = async () => {
    setBusy(true);
    setError(null);
    try {
      // The same id for each try: a lost answer is settled by asking again.
      const body = what === "run" ? { requestId: id } : what === "pause" && note ? { note } : undefined;
      // One of several calls, of one kind for the types.
      const done = await call(/** @type {"POST"} */ (method), jobPath(client, name, /** @type {"/run-now"} */ (path)), { body: /** @type {Api.RunNowForm} */ (body) });
      announce(said);
      setAnswer(done.data ?? {});
      // The page behind is read anew at once: its state beside this answer would contradict it.
      onDone();
    } catch (wrong) {
      if (!(wrong instanceof ApiError)) throw wrong;
      setError(wrong);
    } finally {
      setBusy(false);
    }
  };
  return html`<${Dialog} title=${html`${title} <${SafeText} text=${`${client}/${name}`} />`} onClose=${onClose}>
    ${answer === null && html`<p>${text}</p>
      ${what === "pause" && html`<${TextField} id="note" label="Reason, for people" value=${note} onInput=${setNote} error=${error?.fields.get("note")} />`}`}
    ${answer !== null && html`<p role="status"><strong>${said}.</strong> ${what === "run" && html`Run <code>${answer.runId}</code>, <${Status} value=${answer.status} />.`}
      ${answer.inFlight ? `These runs may still be delivered as they were before: ${answer.inFlight.map((run) => run.runId).join(", ")}.` : what === "pause" || what === "delete" ? "No run that was armed before will be delivered." : ""}</p>`}
    ${error && html`<div class="notice bad" role="alert"><strong>${error.problem.title}</strong><${Details} error=${error} /></div>`}
    <div class="buttons">${answer !== null
      ? html`<button type="button" data-focus onClick=${onClose}>Close</button>`
      : html`<button type="button" data-focus onClick=${onClose}>Do nothing</button><${ActionButton} className=${danger ? "danger" : "primary"} offReason=${busy ? "under way" : null} onClick=${send}>${verb}<//>`}</div>
  <//>`;
}

/** @param {{job: Api.JobDocument}} props */
function Overview({ job }) {
  const { counts, misfire, delivery } = job;
  return html`<div class="columns">
    <section class="card" aria-labelledby="next-title"><h2 id="next-title">The next ten</h2>
      ${job.status === "active" && job.nextTimes ? html`<${FireTimes} times=${job.nextTimes} zone=${job.trigger?.timeZone} />` : html`<p>${job.status === "active" ? "It runs only when it is told to." : `None: it is ${job.status}.`}</p>`}</section>
    <section class="card" aria-labelledby="facts-title"><h2 id="facts-title">What was asked for</h2>
      <dl class="facts">
        <dt>Runs</dt><dd><${SafeText} text=${triggerWords(job.trigger)} />${job.trigger?.type === "cron" && html` <code>${job.trigger.expression}</code>`}</dd>
        <dt>Topic</dt><dd><${TopicName} topic=${delivery.topic} /></dd>
        <dt>Ordering key</dt><dd><${SafeText} text=${job.orderingKey ?? job.jobId} /></dd>
        <dt>Missed in an outage</dt><dd>${misfire.policy === "skip" ? "are skipped" : misfire.policy === "fire_all" ? "are all caught up" : "the last is caught up"}</dd>
        <dt>Overlap</dt><dd>${job.overlap === "allow" ? "runs may overlap" : job.overlap === "skip" ? "a run is skipped while another is open" : "a run waits for the one before"}</dd>
        ${job.completion && html`<dt>Completion</dt><dd>within ${lengthText(job.completion.timeoutMs)}${job.completion.retry ? `, ${plural(job.completion.retry.attempts, "attempt")}` : ""}</dd>`}
        ${job.pauseAfterFailures > 0 && html`<dt>Paused after</dt><dd>${plural(job.pauseAfterFailures, "failure")} in a row</dd>`}
        ${job.labels && html`<dt>Labels</dt><dd>${Object.entries(job.labels).map(([label, value]) => html`<a href=${href("/jobs", { client: job.clientId, label: `${label}:${value}` })}><${SafeText} text=${`${label}:${value}`} /></a> `)}</dd>`}
        <dt>Version</dt><dd>${job.version}</dd>
        <dt>Created</dt><dd><${Time} ms=${job.createdAt} /></dd>
        <dt>So far</dt><dd>${counts.delivered.toLocaleString("en")} delivered, ${counts.failed.toLocaleString("en")} failed, ${counts.skipped.toLocaleString("en")} skipped</dd>
      </dl></section>
    <section class="card" aria-labelledby="last-title"><h2 id="last-title">Last run</h2>
      ${job.lastRun ? html`<p><${Status} value=${job.lastRun.status} /> ${job.lastRun.reason && html`· <${SafeText} text=${job.lastRun.reason} />`}</p>
        <p>${job.lastRun.dueAt !== undefined && html`<${Time} ms=${job.lastRun.dueAt} />`}</p>` : html`<p class="muted">None yet.</p>`}
      ${job.openRuns !== undefined && job.openRuns.length > 0 && html`<p>${plural(job.openRuns.length, "run is", "runs are")} delivered and not completed yet.</p>`}
      ${job.lastRun && html`<p><a href=${href("/job", { client: job.clientId, job: job.jobId, tab: "runs" })}>All runs</a></p>`}</section>
  </div>`;
}

/** @typedef {Api.RunDocument & {key: string, texts: [string, string | null][]}} Run `texts`: result and error, as they were written */

/**
 * Columns with something in them: jobs without completion have no durations, and most runs are delivered at once.
 * @param {Run[]} rows @param {string} topic @returns {Column<Run>[]}
 */
const runColumns = (rows, topic) => /** @type {(Column<Run> | false)[]} */ ([
  { id: "due", label: "Due", head: true, className: "when", cell: (row) => row.status === "skipped" && row.first !== undefined
    ? html`<div><${Time} ms=${row.first} form="absolute" />${row.count !== undefined && row.count > 1 && html` to <${Time} ms=${row.last} form="absolute" />`}</div>` : html`<${Time} ms=${row.dueAt ?? row.scheduledAt} />` },
  { id: "status", label: "Result", cell: (row) => html`<div><${Status} value=${row.status} />${row.count !== undefined && html` <span>${plural(row.count, "fire time")}</span>`}</div>` },
  { id: "kind", label: "Kind", cell: (row) => (row.kind ?? "").replaceAll("_", " ") },
  rows.some((row) => row.durationMs !== undefined) && { id: "duration", label: "Duration", className: "number", cell: (row) => row.durationMs !== undefined ? lengthText(row.durationMs) : "" },
  { id: "late", label: "Lateness", className: "number", cell: (row) => row.delivered ? lengthText(row.delivered.latenessMs) : "" },
  { id: "where", label: "Where, or why", cell: (row) => (row.reason || row.delivered || row.texts.length > 0) && html`<div>${row.reason ? html`<${SafeText} text=${row.reason} />` : row.delivered ? html`<${RecordPlace} ...${row.delivered} bare=${row.delivered.topic === topic} />` : ""}
    ${row.texts.map(([label, text]) => html`<details><summary>${label}</summary><${Json} text=${text} label=${label} /></details>`)}</div>` },
  rows.some((row) => (row.attempt ?? 1) > 1) && { id: "attempt", label: "Attempt", className: "number", cell: (row) => row.attempt ?? "" },
  { id: "version", label: "Version", className: "number", cell: (row) => row.version ?? "" },
]).filter((each) => each !== false);

/** @param {{client: string, name: string, topic: string}} props */
function Runs({ client, name, topic }) {
  const runs = useResource(JSON.stringify(["runs", client, name]), async (signal) => {
    const answer = await call("GET", jobPath(client, name, "/logs"), { query: { limit: 50 }, signal });
    const rows = answer.data.runs.map((row, number) => /** @type {Run} */ ({
      ...row,
      key: row.runId !== undefined ? `${row.runId}/${row.attempt ?? 1}` : `skipped/${row.first}/${row.reason}`,
      texts: /** @type {const} */ (["result", "error"]).filter((each) => row[each] !== undefined && row[each] !== null).map((each) => [each, memberText(answer.text, ["runs", number, each])]),
    }));
    return { rows, cursor: answer.data.cursor, units: answer.readUnits };
  }, { everyMs: EVERY_MS });
  return html`<${View} of=${runs}>${runs.data && html`<${AsOf} of=${runs} live readUnits=${runs.data.units} />
    ${runs.data.rows.length > 0 ? html`<${Table} caption=${`Runs of ${name}, newest first`} columns=${runColumns(runs.data.rows, topic)} rows=${runs.data.rows} keyOf=${(/** @type {Run} */ row) => row.key} />` : html`<p class="muted">No run has ended yet.</p>`}
    ${runs.data.cursor && html`<p class="muted">The newest ${runs.data.rows.length} are shown; the others are in <code>GET ${jobPath(client, name, "/logs")}</code>.</p>`}`}<//>`;
}

/** @param {{client: string, name: string}} props */
function Versions({ client, name }) {
  const versions = useResource(JSON.stringify(["versions", client, name]), async (signal) => {
    const answer = await call("GET", jobPath(client, name, "/versions"), { signal });
    return { versions: answer.data.versions, units: answer.readUnits };
  });
  /** @type {Column<Api.JobVersionDocument>[]} */
  const columns = [
    { id: "version", label: "Version", head: true, cell: (row) => row.version },
    { id: "changed", label: "Made", cell: (row) => html`<${Time} ms=${row.changedAt} />` },
    { id: "by", label: "By", cell: (row) => row.changedBy ?? html`<span class="muted">no key was needed</span>` },
    { id: "trigger", label: "Runs", cell: (row) => html`<${SafeText} text=${triggerWords(row.trigger)} />` },
    { id: "topic", label: "Topic", cell: (row) => row.delivery.topic },
  ];
  return html`<${View} of=${versions}>${versions.data && html`<${AsOf} of=${versions} readUnits=${versions.data.units} />
    <${Table} caption=${`Versions of ${name}`} columns=${columns} rows=${versions.data.versions} keyOf=${(/** @type {Api.JobVersionDocument} */ row) => String(row.version)} />`}<//>`;
}

/** @param {{job: Api.JobDocument, data: string | null, client: string, name: string}} props */
function Curl({ job, data, client, name }) {
  const path = jobPath(client, name);
  const parts = [["Show it", curlText("GET", `${path}?next=5`)], ["Its runs", curlText("GET", `${path}/logs`)], ["Pause it", curlText("POST", `${path}/pause`, '{"note": "why"}')], ["Create the same", curlText("POST", "/jobs", jobCreateText(job, data))]];
  return html`<div class="columns">${parts.map(([title, text]) => html`<section class="card"><div class="head"><h2>${title}</h2><${Copy} text=${text} /></div><pre tabindex="0" role="group" aria-label=${title}><${SafeText} text=${text} lines /></pre></section>`)}</div>`;
}

const STATE_FIELDS = ["status", "version", "createdAt", "updatedAt", "pausedSince", "note", "nextRun", "lastRun", "openRuns", "counts", "nextTimes", "inFlight", "taskData", "redacted"];

/** The create that makes a job again. @param {Api.JobDocument} job @param {string | null} data */
export function jobCreateText(job, data) {
  const document = Object.fromEntries(Object.entries(job).filter(([name]) => !STATE_FIELDS.includes(name)));
  return withData(document, data);
}
