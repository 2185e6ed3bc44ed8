/** A new job, or a change of one: a form, the next fire times as they are typed, and the JSON that is sent. */
import { html, useEffect, useMemo, useState } from "../lib.js";
import { ClientField } from "../parts/clients.js";
import { ActionButton, Choice, DraftNotice, Field, TextField, curlText, focusWrong, headersOf, headersText, useDraft, useSending } from "../parts/form.js";
import { jsonFault, memberText, pretty } from "../parts/json.js";
import { Details, View } from "../parts/states.js";
import { Copy, SafeText } from "../parts/text.js";
import { instantOf, rfc3339 } from "../parts/time.js";
import { Preview, TriggerFields, triggerForm, triggerOf, usePreview } from "../parts/trigger.js";
import { call, jobPath } from "../state/api.js";
import { useResource } from "../state/poll.js";
import { lastClient, rememberClient, zone as chosenZone } from "../state/prefs.js";
import { useMe, whyNotAllowed } from "../state/session.js";
import { go, href } from "../state/url.js";
import { withData } from "./schedule.js";

/** @param {{params: URLSearchParams}} props */
export function NewJobPage({ params }) {
  const client = params.get("client") ?? "";
  const name = params.get("job");
  const before = useResource(name ? JSON.stringify(["job to change", client, name]) : null, async (signal) => {
    const answer = await call("GET", jobPath(client, /** @type {string} */ (name)), { signal });
    return { job: answer.data, etag: /** @type {string} */ (answer.etag), data: memberText(answer.text, ["taskData"]) };
  });
  return html`
    ${name && html`<p class="crumbs"><a href=${href("/jobs", { client })}>${client}</a> / <a href=${href("/job", { client, job: name })}><${SafeText} text=${name} /></a> /</p>`}
    <h1 tabindex="-1">${name ? "Change the job" : "New job"}</h1>
    ${name ? html`<${View} of=${before}>${before.data && html`<${Form} key=${before.data.job.version} client=${client} before=${before.data} />`}<//>` : html`<${Form} client=${client} before=${null} />`}`;
}

/** Names in a request, by those of the form. */
const FIELDS = {
  client: "clientId", job: "jobId", description: "description", topic: "delivery.topic", ordering: "orderingKey", trigger: "trigger", data: "taskData",
  headers: "delivery.headers", misfire: "misfire", overlap: "overlap", timeout: "completion", failures: "pauseAfterFailures", labels: "labels",
};

/** @typedef {{job: Api.JobDocument, etag: string, data: string | null}} Before a job as it was read */

/** @param {string} client @param {Before | null} before */
function valuesOf(client, before) {
  const zone = chosenZone();
  const job = before?.job;
  return {
    client: client || lastClient.get(), job: job?.jobId ?? "", description: job?.description ?? "", topic: job?.delivery.topic ?? "", ordering: job && job.orderingKey !== job.jobId ? job.orderingKey ?? "" : "",
    trigger: triggerForm(job ? job.trigger ?? null : undefined, zone),
    data: before?.data ? pretty(before.data) : job ? "" : '{\n  "hello": "world"\n}',
    headers: headersText(job?.delivery.headers),
    misfire: job?.misfire.policy ?? "fire_once", overlap: job?.overlap ?? "allow", timeout: job?.completion ? String(job.completion.timeoutMs / 1_000) : "",
    failures: job?.pauseAfterFailures ? String(job.pauseAfterFailures) : "",
    labels: Object.entries(job?.labels ?? {}).map(([label, value]) => `${label}: ${value}`).join("\n"),
  };
}

/** @param {{client: string, before: Before | null}} props `before`: null for a new job */
function Form({ client, before }) {
  const me = useMe();
  const start = useMemo(() => valuesOf(client, before), []);
  const draft = useDraft(JSON.stringify(["job", client, before?.job.jobId, before?.job.version]), () => start);
  const { form } = draft;
  const sending = useSending(focusWrong);
  const { busy, error, setError } = sending;
  const [made, setMade] = useState(/** @type {{changed?: boolean, again?: boolean, job: Api.JobDocument} | null} */ (null));
  useEffect(() => setMade(null), [form]);
  const set = (/** @type {keyof typeof form} */ field) => (/** @type {unknown} */ value) => {
    draft.edit((now) => ({ ...now, [field]: value }));
    setError((now) => now?.without(FIELDS[field]) ?? null);
  };
  const touched = (/** @type {(keyof typeof form)[]} */ ...fields) => before === null || fields.some((field) => form[field] !== start[field]);
  const startMs = instantOf(form.trigger.start);
  const trigger = triggerOf({ ...form.trigger, startText: startMs === null ? "" : rfc3339(startMs, form.trigger.start.zone) });
  const headers = headersOf(form.headers);
  const labels = headersOf(form.labels);
  const binary = before?.job.taskDataEncoding === "base64";

  // Of a job that is there, only what was touched is sent: the rest stays as it is, also what this form does not show.
  const document = /** @type {Api.JobChangeForm} */ (before === null ? { clientId: form.client.trim(), jobId: form.job } : {});
  const delivery = /** @type {Api.DeliveryForm} */ ({});
  if (touched("trigger") && trigger !== undefined && (trigger !== null || before !== null)) document.trigger = trigger;
  if (trigger === null && touched("trigger")) document.durable = true;
  if (touched("description") && (form.description || before)) document.description = form.description || null;
  if (touched("ordering") && (form.ordering || before)) document.orderingKey = form.ordering || before?.job.jobId;
  if (touched("topic")) delivery.topic = form.topic.trim();
  if (touched("headers") && headers && (Object.keys(headers).length || before)) delivery.headers = headers;
  if (Object.keys(delivery).length) document.delivery = delivery;
  if (touched("misfire") && (before || form.misfire !== "fire_once")) document.misfire = /** @type {Api.MisfireForm} */ ({ policy: form.misfire });
  if (touched("overlap") && (before || form.overlap !== "allow")) document.overlap = form.overlap;
  if (touched("timeout") && (before || form.timeout)) document.completion = form.timeout ? { timeoutMs: Math.round(Number(form.timeout) * 1_000) } : null;
  if (touched("failures") && (before || form.failures)) document.pauseAfterFailures = Number(form.failures || 0);
  if (touched("labels") && labels && (Object.keys(labels).length || before)) document.labels = labels;
  const dataTouched = touched("data");
  const text = withData(document, dataTouched ? form.data : null);
  const wrongJson = dataTouched ? jsonFault(form.data) : null;
  const preview = usePreview(trigger, before ? client : form.client.trim(), before ? before.job.jobId : form.job);
  const offReason = whyNotAllowed(me, "create") ?? (trigger === undefined ? "the trigger is no JSON" : wrongJson ? "the content is no JSON" : headers === null ? "the headers cannot be read" : labels === null ? "the labels cannot be read"
    : before && text === "{}" ? "nothing is changed" : busy ? "under way" : null);
  const send = () => sending.send(async () => {
    if (before) {
      const answer = await call("PUT", jobPath(client, before.job.jobId), { text, headers: { "if-match": before.etag } });
      draft.forget();
      if (answer.data.inFlight) setMade({ changed: true, job: answer.data });
      else go(href("/job", { client, job: before.job.jobId }));
    } else {
      const answer = await call("POST", "/jobs", { text });
      rememberClient(answer.data.clientId);
      setMade({ again: answer.status === 200, job: answer.data });
      draft.forget();
    }
  });
  const told = (/** @type {string} */ field) => [...error?.fields ?? []].filter(([each]) => each === field || each.startsWith(`${field}.`));
  const wrong = (/** @type {string} */ field) => told(field)[0]?.[1];
  const triggerFields = new Map([...told("trigger"), ...preview?.error?.fields ?? []]);
  return html`<${DraftNotice} of=${draft} /><div class="columns">
    <form class="card form" aria-label=${before ? "Change the job" : "New job"} onSubmit=${(event) => {
      event.preventDefault();
      if (!offReason) send();
    }}>
      ${before === null && html`<div class="pair">
        <${ClientField} id="client" value=${form.client} onInput=${set("client")} error=${wrong("clientId")} />
        <${TextField} id="job" label="Job id" value=${form.job} onInput=${set("job")} error=${wrong("jobId")} required /></div>`}
      <${TextField} id="description" label="Description" value=${form.description} onInput=${set("description")} error=${wrong("description")} />
      <${TriggerFields} form=${form.trigger} onChange=${set("trigger")} fields=${triggerFields} />
      <div class="pair">
        <${TextField} id="topic" label="Topic" value=${form.topic} onInput=${set("topic")} error=${wrong("delivery.topic")} hint="An existing Kafka topic." required />
        <${TextField} id="ordering" label="Ordering key" value=${form.ordering} onInput=${set("ordering")} error=${wrong("orderingKey")} hint="By default the job id." />
      </div>
      <${Field} id="data" label=${binary ? "Content of each run (base64, as a JSON string)" : "Content of each run (JSON)"} error=${wrong("taskData") ?? wrongJson ?? undefined}>${(attributes) =>
        html`<textarea ...${attributes} rows="6" spellcheck=${false} value=${form.data} onInput=${(event) => set("data")(event.currentTarget.value)}></textarea>`}<//>
      <details><summary>Times missed, overlap, completion, headers, labels</summary><div class="form">
        <div class="pair">
          <${Choice} id="misfire" label="Times missed in an outage" value=${form.misfire} onChange=${set("misfire")} error=${wrong("misfire")} options=${[["fire_once", "catch up the last"], ["fire_all", "catch up all"], ["skip", "skip"]]} />
          <${TextField} id="timeout" label="Completion within, s" inputmode="decimal" value=${form.timeout} onInput=${set("timeout")} error=${wrong("completion")} hint="Consumers say how a run ended; empty: delivery ends it." />
          <${Choice} id="overlap" label="While a run is open" value=${form.overlap} onChange=${set("overlap")} error=${wrong("overlap")} options=${[["allow", "others may run too"], ["skip", "skip fire times"], ["wait", "the next waits"]]} />
          <${TextField} id="failures" label="Pause after failures in a row" inputmode="numeric" value=${form.failures} onInput=${set("failures")} error=${wrong("pauseAfterFailures")} />
        </div>
        <${Field} id="headers" label="Headers" hint="One a line, name: value." error=${wrong("delivery.headers") ?? (headers === null ? "Each line should be name: value." : undefined)}>${(attributes) => html`<textarea ...${attributes} rows="3" spellcheck=${false} value=${form.headers} onInput=${(event) => set("headers")(event.currentTarget.value)}></textarea>`}<//>
        <${Field} id="labels" label="Labels" hint="One a line, name: value." error=${wrong("labels") ?? (labels === null ? "Each line should be name: value." : undefined)}>${(attributes) => html`<textarea ...${attributes} rows="2" spellcheck=${false} value=${form.labels} onInput=${(event) => set("labels")(event.currentTarget.value)}></textarea>`}<//>
      </div></details>
      ${error && html`<div class="notice bad" role="alert"><strong>${error.problem.title}</strong><${Details} error=${error} />
        ${error.problem.job && html`<p><a href=${href("/job", { client: error.problem.job.clientId, job: error.problem.job.jobId })}>The one that is there</a></p>`}</div>`}
      ${made && html`<div class="notice" role="status"><p><strong>${made.changed ? "Changed." : made.again ? "Same again: it was there already, and nothing was changed." : "Created, and durable."}</strong></p>
        ${made.job.inFlight && html`<p>These runs may still be delivered as they were before: ${made.job.inFlight.map((run) => run.runId).join(", ")}</p>`}
        <p><a href=${href("/job", { client: made.job.clientId, job: made.job.jobId })}><${SafeText} text=${`${made.job.clientId}/${made.job.jobId}`} /></a></p></div>`}
      <div class="buttons"><${ActionButton} className="primary" offReason=${offReason} onClick=${send}>${before ? "Change" : "Create"}<//></div>
    </form>
    <div class="form-side form">
      <section class="card" aria-labelledby="next-title"><h2 id="next-title">The next ten</h2><${Preview} trigger=${trigger} answer=${preview} /></section>
      <section class="card" aria-labelledby="sent-title"><div class="head"><h2 id="sent-title">What is sent</h2><div class="buttons"><${Copy} text=${text} label="Copy JSON" />
        <${Copy} text=${before ? curlText("PUT", jobPath(client, before.job.jobId), text) : curlText("POST", "/jobs", text)} label="Copy curl" /></div></div>
        <pre tabindex="0" role="group" aria-label="What is sent"><${SafeText} text=${text} lines /></pre></section>
    </div>
  </div>`;
}
