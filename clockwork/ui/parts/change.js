/** Dialogs that change one schedule: move it, or change any field. */
import { html, useMemo, useState } from "../lib.js";
import { call, schedulePath } from "../state/api.js";
import { useZone } from "../state/prefs.js";
import { Dialog } from "./dialog.js";
import { ActionButton, Choice, Field, TextField, announce, focusWrong, headersOf, headersText, useSending } from "./form.js";
import { jsonFault, pretty } from "./json.js";
import { Details } from "./states.js";
import { SafeText } from "./text.js";
import { ZonedTime, instantOf, lengthText, rfc3339, wallClockOf } from "./time.js";

/** @type {[string, number][]} */
const STEPS = [["15 min later", 900_000], ["1 h later", 3_600_000], ["1 day later", 86_400_000]];

/**
 * @typedef {object} Entry a schedule as it was read
 * @property {Api.ScheduleDocument} schedule
 * @property {string | null} data the text of its content; null: it is not known
 * @property {string} etag
 */

/**
 * @param {{what: "move" | "change", entry: Entry, client: string, keyName: string, onClose: (done: boolean) => void}} props
 */
export function Change({ what, entry, client, keyName, onClose }) {
  const { schedule, etag, data } = entry;
  const zone = useZone();
  const start = useMemo(() => wallClockOf(schedule.scheduleTime, zone), []);
  const [time, setTime] = useState(start);
  const [topic, setTopic] = useState(schedule.delivery?.topic ?? "");
  const [ordering, setOrdering] = useState(schedule.orderingKey ?? "");
  const [guarantee, setGuarantee] = useState(schedule.delivery?.guarantee ?? "exactly_once");
  const headersBefore = useMemo(() => headersText(schedule.delivery?.headers), []);
  const [headerLines, setHeaderLines] = useState(headersBefore);
  const before = useMemo(() => (data === null ? "" : safePretty(data)), []);
  const [content, setContent] = useState(before);
  const sending = useSending(focusWrong);
  const { busy, error, setError } = sending;
  const ms = instantOf(time);
  const headers = headersOf(headerLines);
  const changes = /** @type {Api.ChangeForm} */ ({});
  // What was not touched is not sent: the milliseconds of a time that a form shows by seconds, above all.
  if (time !== start && ms !== schedule.scheduleTime) changes.scheduleTime = ms === null ? null : rfc3339(ms, time.zone);
  if (what === "change") {
    if (ordering !== (schedule.orderingKey ?? "")) changes.orderingKey = ordering;
    const delivery = /** @type {Api.DeliveryChangeForm} */ ({});
    if (topic !== schedule.delivery?.topic) delivery.topic = topic;
    if (guarantee !== schedule.delivery?.guarantee) delivery.guarantee = guarantee;
    if (headers && headerLines !== headersBefore) delivery.headers = headers;
    if (Object.keys(delivery).length > 0) changes.delivery = delivery;
  }
  const dataChanged = what === "change" && content !== before;
  const wrongJson = dataChanged && schedule.taskDataEncoding !== "base64" ? jsonFault(content) : null;
  const nothing = Object.keys(changes).length === 0 && !dataChanged && headers !== null;
  const offReason = nothing ? "nothing is changed" : changes.scheduleTime === null ? "the time is not decided" : wrongJson ? "the content is no JSON" : headers === null ? "the headers cannot be read" : null;
  const text = JSON.stringify(changes);
  const body = dataChanged ? `${text.slice(0, -1)}${text === "{}" ? "" : ","}"taskData":${content}}` : text;

  const send = () => sending.send(async () => {
    await call("PUT", schedulePath(client, keyName), { text: body, headers: { "if-match": etag } });
    announce("Changed");
    onClose(true);
  });
  /** @template V @param {string} field @param {(value: V) => void} set */
  const changing = (field, set) => (/** @type {V} */ value) => {
    set(value);
    setError((before) => before?.without(field) ?? null);
  };
  return html`<${Dialog} title=${what === "move" ? `Move ${keyName}` : `Change ${keyName}`} onClose=${() => onClose(false)} wide=${what === "change"}>
    <form class="form" onSubmit=${(event) => {
      event.preventDefault();
      if (!offReason) send();
    }}>
      <${ZonedTime} id="scheduleTime" label="Due" value=${time} onChange=${changing("scheduleTime", setTime)} error=${error?.about("scheduleTime")} pastText=${time === start ? undefined : "This time is past: it is due at once."} />
      <div class="buttons">${STEPS.map(([text, step]) => html`<button type="button" class="small" onClick=${() => changing("scheduleTime", setTime)(wallClockOf(schedule.scheduleTime + step, time.zone))}>${text}</button>`)}</div>
      ${what === "change" && html`
        <div class="pair">
          <${TextField} id="topic" label="Topic" value=${topic} onInput=${changing("delivery.topic", setTopic)} error=${error?.about("delivery.topic")} />
          <${TextField} id="orderingKey" label="Ordering key" value=${ordering} onInput=${changing("orderingKey", setOrdering)} error=${error?.about("orderingKey")} />
          <${Choice} id="guarantee" label="Guarantee" value=${guarantee} onChange=${changing("delivery.guarantee", setGuarantee)} error=${error?.about("delivery.guarantee")} options=${[["exactly_once", "exactly once"], ["at_least_once", "at least once"]]} />
        </div>
        <${Field} id="taskData" label=${schedule.taskDataEncoding === "base64" ? "Content (base64, as a JSON string)" : "Content (JSON)"}
            error=${error?.about("taskData") ?? wrongJson ?? undefined}>${(attributes) =>
          html`<textarea ...${attributes} rows="12" spellcheck=${false} value=${content} onInput=${(event) => changing("taskData", setContent)(event.currentTarget.value)}></textarea>`}<//>
        ${!Object.values(schedule.delivery?.headers ?? {}).includes(null) && html`<${Field} id="headers" label="Headers" hint="One a line, name: value." error=${error?.about("delivery.headers") ?? (headers === null ? "Each line should be name: value." : undefined)}>${(attributes) =>
          html`<textarea ...${attributes} rows="3" spellcheck=${false} value=${headerLines} onInput=${(event) => changing("delivery.headers", setHeaderLines)(event.currentTarget.value)}></textarea>`}<//>`}
        <details><summary>What is sent</summary><pre tabindex="0" role="group" aria-label="What is sent"><${SafeText} text=${body} lines /></pre></details>`}
      ${ms !== null && time !== start && html`<p role="status">${ms >= schedule.scheduleTime ? `${lengthText(ms - schedule.scheduleTime)} later` : `${lengthText(schedule.scheduleTime - ms)} earlier`} than it is due now.</p>`}
      ${error && html`<div class="notice bad" role="alert"><strong>${error.problem.title}</strong><${Details} error=${error} />
        ${error.status === 412 && html`<p>It was changed meanwhile: close this, look, and change it again.</p>`}</div>`}
      <div class="buttons">
        <button type="button" onClick=${() => onClose(false)}>Do nothing</button>
        <${ActionButton} className="primary" offReason=${busy ? "under way" : offReason} onClick=${send}>${what === "move" ? "Move it" : "Change it"}<//>
      </div>
    </form>
  <//>`;
}

/** @param {string} text */
function safePretty(text) {
  try {
    return pretty(text);
  } catch {
    return text;
  }
}
