/** A new schedule: a form beside the JSON that it sends. */
import { html, useEffect, useState } from "../lib.js";
import { isJson } from "../parts/change.js";
import { ClientField } from "../parts/clients.js";
import { Act, Choice, Field, TextField, curlText, focusWrong, headersOf, headersText } from "../parts/form.js";
import { Details } from "../parts/states.js";
import { Copy, Plain, Status } from "../parts/text.js";
import { ZonedTime, instantOf, rfc3339, wallInput } from "../parts/time.js";
import { ApiError, call, fitsPath, schedulePath } from "../state/api.js";
import { now } from "../state/clock.js";
import { memberText, pretty } from "../parts/json.js";
import { lastClient, rememberClient, zone as chosenZone } from "../state/prefs.js";
import { missing, useMe } from "../state/session.js";
import { href } from "../state/url.js";
import { withData } from "./schedule.js";

/** @import { WallTime } from "../parts/time.js" */

/** @type {[string, number][]} */
const SOON = [["in 5 min", 300_000], ["in 1 h", 3_600_000], ["tomorrow", 86_400_000]];
const LATE = [["", "deliver it all the same"], ["drop", "drop it"], ["dead_letter", "make a dead letter of it"]];

/** @param {URLSearchParams} params */
function empty(params) {
  const zone = chosenZone();
  return {
    client: params.get("client") || lastClient.get(), key: "", ordering: "", topic: "", guarantee: "exactly_once", encoding: "json",
    time: /** @type {WallTime} */ ({ wall: wallInput(Math.ceil((now() + 3_600_000) / 60_000) * 60_000, zone), zone }),
    data: '{\n  "hello": "world"\n}', headers: "", deadline: "", onLate: "",
  };
}

/** @param {{params: URLSearchParams}} props */
export function NewPage({ params }) {
  const me = useMe();
  const [form, setForm] = useState(() => empty(params));
  const [error, setError] = useState(/** @type {ApiError | null} */ (null));
  const [made, setMade] = useState(/** @type {{again: boolean, schedule: Api.ScheduleDocument} | null} */ (null));
  const [busy, setBusy] = useState(false);
  const from = params.get("from");
  useEffect(() => {
    if (!from || !form.client || !fitsPath(from)) return;
    call("GET", schedulePath(form.client, from)).then((answer) => {
      const { orderingKey, scheduleKey, delivery = /** @type {Partial<Api.DeliveryDocument>} */ ({}), taskDataEncoding } = answer.data;
      const data = memberText(answer.text, ["taskData"]);
      setForm((before) => ({
        ...before, ordering: orderingKey === scheduleKey ? "" : orderingKey ?? "", topic: delivery.topic ?? "", guarantee: delivery.guarantee ?? "exactly_once",
        encoding: taskDataEncoding ?? "json", data: data === null ? "" : taskDataEncoding === "base64" ? JSON.parse(data) : pretty(data),
        headers: headersText(delivery.headers),
        deadline: delivery.deadline === undefined ? "" : String(delivery.deadline), onLate: delivery.onLate ?? "",
      }));
    }, (wrong) => setError(wrong));
  }, [from]);
  const set = (/** @type {keyof typeof form} */ name) => (/** @type {unknown} */ value) => {
    setForm((before) => ({ ...before, [name]: value }));
    setMade(null);
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
  const wrongJson = form.encoding === "json" && !isJson(form.data);
  const why = missing(me, "create") ?? (ms === null ? "the time is not decided" : wrongJson ? "the content is no JSON" : headers === null ? "the headers cannot be read" : busy ? "under way" : null);
  const send = async () => {
    setBusy(true);
    setError(null);
    setMade(null);
    try {
      const answer = await call("POST", "/schedule", { text });
      rememberClient(answer.data.clientId);
      setMade({ again: answer.status === 200, schedule: answer.data });
    } catch (wrong) {
      if (!(wrong instanceof ApiError)) throw wrong;
      setError(wrong);
      focusWrong();
    } finally {
      setBusy(false);
    }
  };
  const fields = error?.fields ?? new Map();
  const wrong = (/** @type {string} */ name) => [...fields].find(([field]) => field === name || field.startsWith(`${name}.`))?.[1];
  return html`
    <h1 tabindex="-1">New schedule</h1>
    ${from && html`<p>A copy of <a href=${href("/schedule", { client: form.client, key: from })}><${Plain} text=${from} /></a>: give it a key and a time of its own.</p>`}
    <div class="columns">
      <form class="card form" aria-label="New schedule" onSubmit=${(event) => {
        event.preventDefault();
        if (!why) send();
      }}>
        <div class="pair">
          <${ClientField} id="client" value=${form.client} onInput=${set("client")} error=${wrong("clientId")} />
          <${TextField} id="key" label="Schedule key" value=${form.key} onInput=${set("key")} error=${wrong("scheduleKey")} hint="Unique per client while it is pending." required />
        </div>
        <${ZonedTime} id="time" label="Due" value=${form.time} onChange=${set("time")} error=${wrong("scheduleTime")} required />
        <div class="buttons">${SOON.map(([name, step]) => html`<button type="button" class="small" onClick=${() => set("time")({ wall: wallInput(Math.round((now() + step) / 1_000) * 1_000, form.time.zone), zone: form.time.zone })}>${name}</button>`)}</div>
        <div class="pair">
          <${TextField} id="topic" label="Topic" value=${form.topic} onInput=${set("topic")} error=${wrong("delivery.topic")} hint="An existing Kafka topic." required />
          <${TextField} id="ordering" label="Ordering key" value=${form.ordering} onInput=${set("ordering")} error=${wrong("orderingKey")} hint="By default the schedule key." />
        </div>
        <${Field} id="data" label=${form.encoding === "base64" ? "Content (base64)" : "Content (JSON)"} error=${wrong("taskData") ?? (wrongJson ? "This is no JSON." : undefined)}>${(attributes) =>
          html`<textarea ...${attributes} rows="8" spellcheck=${false} value=${form.data} onInput=${(event) => set("data")(event.currentTarget.value)}></textarea>`}<//>
        <details><summary>Headers, guarantee, lateness</summary><div class="form">
          <${Field} id="headers" label="Headers" hint="One a line, name: value." error=${wrong("delivery.headers") ?? (headers === null ? "Each line should be name: value." : undefined)}>${(attributes) =>
            html`<textarea ...${attributes} rows="3" spellcheck=${false} value=${form.headers} onInput=${(event) => set("headers")(event.currentTarget.value)}></textarea>`}<//>
          <div class="pair">
            <${Choice} id="encoding" label="Content is" value=${form.encoding} onChange=${set("encoding")} options=${[["json", "JSON"], ["base64", "bytes, as base64"]]} error=${wrong("taskDataEncoding")} />
            <${Choice} id="guarantee" label="Guarantee" value=${form.guarantee} onChange=${set("guarantee")} options=${[["exactly_once", "exactly once"], ["at_least_once", "at least once"]]} error=${wrong("delivery.guarantee")} />
            <${TextField} id="deadline" label="Late after, ms" inputmode="numeric" value=${form.deadline} onInput=${set("deadline")} error=${wrong("delivery.deadline")} />
            <${Choice} id="onLate" label="If it is late" value=${form.onLate} onChange=${set("onLate")} options=${LATE} error=${wrong("delivery.onLate")} />
          </div></div></details>
        ${error && html`<div class="notice bad" role="alert"><strong>${error.problem.title}</strong><${Details} error=${error} />
          ${error.problem.schedule && html`<p><a href=${href("/schedule", { client: error.problem.schedule.clientId, key: error.problem.schedule.scheduleKey })}>The one that is there</a></p>`}</div>`}
        ${made && html`<div class="notice" role="status"><p><strong>${made.again ? "Same again: it was there already, and nothing was changed." : "Created, and durable."}</strong></p>
          <p><${Status} value=${made.schedule.status} /> <a href=${href("/schedule", { client: made.schedule.clientId, key: made.schedule.scheduleKey })}><${Plain} text=${`${made.schedule.clientId}/${made.schedule.scheduleKey}`} /></a></p></div>`}
        <div class="buttons"><${Act} className="primary" why=${why} onClick=${send}>Create<//></div>
      </form>
      <section class="card form-side" aria-labelledby="sent-title"><div class="head"><h2 id="sent-title">What is sent</h2><div class="buttons"><${Copy} text=${text} label="Copy JSON" /><${Copy} text=${curlText("POST", "/schedule", text)} label="Copy curl" /></div></div>
        <pre tabindex="0" role="group" aria-label="What is sent"><${Plain} text=${text} lines /></pre></section>
    </div>`;
}
