/** A new schedule: a form beside the JSON that it sends. */
import { html, useEffect, useState } from "../lib.js";
import { ClientField } from "../parts/clients.js";
import { ActionButton, Choice, DraftNotice, Field, TextField, curlText, focusWrong, headersOf, headersText, useDraft, useSending } from "../parts/form.js";
import { Details } from "../parts/states.js";
import { Copy, SafeText, Status } from "../parts/text.js";
import { ZonedTime, instantOf, rfc3339, wallClockOf } from "../parts/time.js";
import { call, fitsPath, schedulePath } from "../state/api.js";
import { now } from "../state/clock.js";
import { jsonFault, memberText, pretty } from "../parts/json.js";
import { lastClient, rememberClient, zone as chosenZone } from "../state/prefs.js";
import { useMe, whyNotAllowed } from "../state/session.js";
import { href } from "../state/url.js";
import { withData } from "./schedule.js";

/** @type {[string, number][]} */
const SOON = [["in 5 min", 300_000], ["in 1 h", 3_600_000], ["tomorrow", 86_400_000]];
const LATE = [["", "deliver it all the same"], ["drop", "drop it"], ["dead_letter", "make a dead letter of it"]];

/** Names in a request, by those of the form. */
const FIELDS = {
  client: "clientId", key: "scheduleKey", ordering: "orderingKey", time: "scheduleTime", encoding: "taskDataEncoding", data: "taskData", topic: "delivery.topic",
  guarantee: "delivery.guarantee", headers: "delivery.headers", deadline: "delivery.deadline", onLate: "delivery.onLate",
};

/** @param {string} client */
function empty(client) {
  return {
    client, key: "", ordering: "", topic: "", guarantee: "exactly_once", encoding: "json",
    time: wallClockOf(Math.ceil((now() + 3_600_000) / 60_000) * 60_000, chosenZone()),
    data: '{\n  "hello": "world"\n}', headers: "", deadline: "", onLate: "",
  };
}

/** @param {{params: URLSearchParams}} props */
export function NewSchedulePage({ params }) {
  const me = useMe();
  const from = params.get("from");
  const client = params.get("client") || lastClient.get();
  const draft = useDraft(JSON.stringify(["schedule", client, from]), () => empty(client));
  const { form } = draft;
  const sending = useSending(focusWrong);
  const { busy, error, setError } = sending;
  const [made, setMade] = useState(/** @type {{again: boolean, schedule: Api.ScheduleDocument} | null} */ (null));
  useEffect(() => {
    if (!from || !form.client || !fitsPath(from) || draft.kept) return;
    call("GET", schedulePath(form.client, from)).then((answer) => {
      const { orderingKey, scheduleKey, delivery = /** @type {Partial<Api.DeliveryDocument>} */ ({}), taskDataEncoding } = answer.data;
      const data = memberText(answer.text, ["taskData"]);
      draft.fill((before) => ({
        ...before, ordering: orderingKey === scheduleKey ? "" : orderingKey ?? "", topic: delivery.topic ?? "", guarantee: delivery.guarantee ?? "exactly_once",
        encoding: taskDataEncoding ?? "json", data: data === null ? "" : taskDataEncoding === "base64" ? JSON.parse(data) : pretty(data),
        headers: headersText(delivery.headers),
        deadline: delivery.deadline === undefined ? "" : String(delivery.deadline), onLate: delivery.onLate ?? "",
      }));
    }, (wrong) => setError(wrong));
  }, [from, draft.begun]);
  const set = (/** @type {keyof typeof form} */ name) => (/** @type {unknown} */ value) => {
    draft.edit((before) => ({ ...before, [name]: value }));
    setMade(null);
    setError((before) => before?.without(FIELDS[name]) ?? null);
  };
  const ms = instantOf(form.time);
  const headers = headersOf(form.headers);
  const deadline = form.deadline.trim();
  const document = {
    clientId: form.client.trim(), scheduleKey: form.key, ...(form.ordering ? { orderingKey: form.ordering } : {}),
    scheduleTime: ms === null ? "" : rfc3339(ms, form.time.zone), ...(form.encoding === "base64" ? { taskDataEncoding: "base64" } : {}),
    delivery: {
      topic: form.topic.trim(), guarantee: form.guarantee, ...(headers && Object.keys(headers).length ? { headers } : {}),
      ...(deadline ? { deadline: /^\d+$/.test(deadline) ? Number(deadline) : deadline } : {}), ...(form.onLate ? { onLate: form.onLate } : {}),
    },
  };
  const text = withData(document, form.encoding === "base64" ? JSON.stringify(form.data.trim()) : form.data);
  const wrongJson = form.encoding === "json" ? jsonFault(form.data) : null;
  const offReason = whyNotAllowed(me, "create") ?? (ms === null ? "the time is not decided" : wrongJson ? "the content is no JSON" : headers === null ? "the headers cannot be read" : busy ? "under way" : null);
  const send = () => sending.send(async () => {
    setMade(null);
    const answer = await call("POST", "/schedule", { text });
    rememberClient(answer.data.clientId);
    setMade({ again: answer.status === 200, schedule: answer.data });
    draft.forget();
  });
  const wrong = (/** @type {keyof typeof form} */ name) => error?.about(FIELDS[name]);
  return html`
    <h1 tabindex="-1">New schedule</h1>
    ${from && html`<p>A copy of <a href=${href("/schedule", { client: form.client, key: from })}><${SafeText} text=${from} /></a>: give it a key and a time of its own.</p>`}
    <${DraftNotice} of=${draft} />
    <div class="columns">
      <form class="card form" aria-label="New schedule" onSubmit=${(event) => {
        event.preventDefault();
        if (!offReason) send();
      }}>
        <div class="pair">
          <${ClientField} id="client" value=${form.client} onInput=${set("client")} error=${wrong("client")} />
          <${TextField} id="key" label="Schedule key" value=${form.key} onInput=${set("key")} error=${wrong("key")} hint="Unique per client while it is pending." required />
        </div>
        <${ZonedTime} id="time" label="Due" value=${form.time} onChange=${set("time")} error=${wrong("time")} pastText="This time is past: it is due at once." required />
        <div class="buttons">${SOON.map(([name, step]) => html`<button type="button" class="small" onClick=${() => set("time")(wallClockOf(Math.round((now() + step) / 1_000) * 1_000, form.time.zone))}>${name}</button>`)}</div>
        <div class="pair">
          <${TextField} id="topic" label="Topic" value=${form.topic} onInput=${set("topic")} error=${wrong("topic")} hint="An existing Kafka topic." required />
          <${TextField} id="ordering" label="Ordering key" value=${form.ordering} onInput=${set("ordering")} error=${wrong("ordering")} hint="By default the schedule key." />
        </div>
        <${Field} id="data" label=${form.encoding === "base64" ? "Content (base64)" : "Content (JSON)"} error=${wrong("data") ?? wrongJson ?? undefined}>${(attributes) =>
          html`<textarea ...${attributes} rows="8" spellcheck=${false} value=${form.data} onInput=${(event) => set("data")(event.currentTarget.value)}></textarea>`}<//>
        <details><summary>Headers, guarantee, lateness</summary><div class="form">
          <${Field} id="headers" label="Headers" hint="One a line, name: value." error=${wrong("headers") ?? (headers === null ? "Each line should be name: value." : undefined)}>${(attributes) =>
            html`<textarea ...${attributes} rows="3" spellcheck=${false} value=${form.headers} onInput=${(event) => set("headers")(event.currentTarget.value)}></textarea>`}<//>
          <div class="pair">
            <${Choice} id="encoding" label="Content is" value=${form.encoding} onChange=${set("encoding")} options=${[["json", "JSON"], ["base64", "bytes, as base64"]]} error=${wrong("encoding")} />
            <${Choice} id="guarantee" label="Guarantee" value=${form.guarantee} onChange=${set("guarantee")} options=${[["exactly_once", "exactly once"], ["at_least_once", "at least once"]]} error=${wrong("guarantee")} />
            <${TextField} id="deadline" label="Late after, ms" inputmode="numeric" value=${form.deadline} onInput=${set("deadline")} error=${wrong("deadline")} />
            <${Choice} id="onLate" label="If it is late" value=${form.onLate} onChange=${set("onLate")} options=${LATE} error=${wrong("onLate")} />
          </div></div></details>
        ${error && html`<div class="notice bad" role="alert"><strong>${error.problem.title}</strong><${Details} error=${error} />
          ${error.problem.schedule && html`<p><a href=${href("/schedule", { client: error.problem.schedule.clientId, key: error.problem.schedule.scheduleKey })}>The one that is there</a></p>`}</div>`}
        ${made && html`<div class="notice" role="status"><p><strong>${made.again ? "Same again: it was there already, and nothing was changed." : "Created, and durable."}</strong></p>
          <p><${Status} value=${made.schedule.status} /> <a href=${href("/schedule", { client: made.schedule.clientId, key: made.schedule.scheduleKey })}><${SafeText} text=${`${made.schedule.clientId}/${made.schedule.scheduleKey}`} /></a></p></div>`}
        <div class="buttons"><${ActionButton} className="primary" offReason=${offReason} onClick=${send}>Create<//></div>
      </form>
      <section class="card form-side" aria-labelledby="sent-title"><div class="head"><h2 id="sent-title">What is sent</h2><div class="buttons"><${Copy} text=${text} label="Copy JSON" /><${Copy} text=${curlText("POST", "/schedule", text)} label="Copy curl" /></div></div>
        <pre tabindex="0" role="group" aria-label="What is sent"><${SafeText} text=${text} lines /></pre></section>
    </div>`;
}
