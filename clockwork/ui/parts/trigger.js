/** Triggers in words, and the fields that make one. */
import { html, useEffect, useState } from "../lib.js";
import { ApiError, call } from "../state/api.js";
import { now } from "../state/clock.js";
import { useMe } from "../state/session.js";
import { Choice, TextField } from "./form.js";
import { jsonFault } from "./json.js";
import { SafeText, plural } from "./text.js";
import { Time, ZonedTime, lengthText, wallInput } from "./time.js";

/** @import { WallClockTime } from "./time.js" */

const DAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const DAY_NAMES = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
const MONTHS = ["", "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];
const MONTH_NAMES = ["", "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const PLAIN = /^[0-9]+$/;
const MINUTES = 60;
const HOURS = 24;

/** @param {string[]} parts */
const listText = (parts) => parts.length < 2 ? parts.join("") : `${parts.slice(0, -1).join(", ")} and ${parts.at(-1)}`;
/** @param {string} text */
const dayOf = (text) => DAYS[PLAIN.test(text) ? Number(text) : DAY_NAMES.indexOf(text.toUpperCase())];
/** @param {string} text */
const monthOf = (text) => MONTHS[PLAIN.test(text) ? Number(text) : MONTH_NAMES.indexOf(text.toUpperCase())];
/** @param {string} text */
const two = (text) => text.padStart(2, "0");

/**
 * A list of names and ranges in words; null if it has anything else.
 * @param {string} field @param {(text: string) => string | undefined} nameOf
 */
function namesText(field, nameOf) {
  const parts = field.split(",").map((each) => {
    const [from, to, more] = each.split("-");
    if (more !== undefined || !nameOf(from) || (to !== undefined && !nameOf(to))) return null;
    return to === undefined ? nameOf(from) : `${nameOf(from)} to ${nameOf(to)}`;
  });
  return parts.includes(null) ? null : listText(/** @type {string[]} */ (parts));
}

/** Whether a text is a list of numbers below a bound, and from one on. @param {string} text @param {number} below */
const numbersBelow = (text, below, from = 0) => text.split(",").every((each) => PLAIN.test(each) && Number(each) >= from && Number(each) < below);
/** Whether a text is a step after which the next hour or day begins as this one. @param {string} text @param {number} whole */
const stepOf = (text, whole) => /^\*\/[1-9][0-9]*$/.test(text) && whole % Number(text.slice(2)) === 0;

/**
 * A cron expression of five fields in words; null where plain words would not say it all, and where a number is none of its
 * field: words that look right would hide what is wrong.
 * @param {string} expression
 */
export function cronWords(expression) {
  const fields = expression.trim().split(/\s+/);
  if (fields.length !== 5) return null;
  const [minute, hour, day, month, weekday] = fields;
  let time;
  const onMinute = PLAIN.test(minute) && numbersBelow(minute, MINUTES);
  const [from, to] = hour.split("-");
  if (onMinute && numbersBelow(hour, HOURS)) time = `at ${listText(hour.split(",").map((each) => `${two(each)}:${two(minute)}`))}`;
  else if (onMinute && hour === "*") time = minute === "0" ? "every hour, on the hour" : `every hour at minute ${minute}`;
  else if (minute === "*" && hour === "*") time = "every minute";
  else if (stepOf(minute, MINUTES) && hour === "*") time = `every ${plural(Number(minute.slice(2)), "minute")}`;
  else if (onMinute && stepOf(hour, HOURS)) time = `every ${plural(Number(hour.slice(2)), "hour")} at minute ${minute}`;
  else if (onMinute && hour === `${from}-${to}` && numbersBelow(`${from},${to}`, HOURS)) {
    time = `every hour from ${two(from)}:${two(minute)} to ${two(to)}:${two(minute)}`;
  } else return null;
  if (day !== "*" && weekday !== "*") return null;
  let days = "every day";
  if (weekday !== "*" && weekday !== "?") {
    const names = namesText(weekday, dayOf);
    if (names === null) return null;
    days = `on ${names}`;
  } else if (day !== "*" && day !== "?") {
    if (day === "L") days = "on the last day of the month";
    else if (numbersBelow(day, 32, 1)) days = `on day ${listText(day.split(","))} of the month`;
    else return null;
  }
  if (time.startsWith("every") && days === "every day") days = "";
  let months = "";
  if (month !== "*") {
    const names = namesText(month, monthOf);
    if (names === null) return null;
    months = ` in ${names}`;
  }
  return `${time}${days ? `, ${days}` : ""}${months}`;
}

/**
 * A trigger, as it is answered or asked for. Which fields it has depends on its type.
 * @typedef {{type: string, expression?: string, timeZone?: string, everyMs?: number, delayMs?: number, rule?: string,
 *            of?: Trigger[]}} Trigger
 */

/** A trigger in words. @param {Trigger | null | undefined} trigger @returns {string} */
export function triggerWords(trigger) {
  if (!trigger) return "by hand only";
  switch (trigger.type) {
    case "cron": return `${cronWords(trigger.expression ?? "") ?? trigger.expression}, ${trigger.timeZone ?? "UTC"}`;
    case "fixed_rate": return `every ${lengthText(trigger.everyMs ?? 0)}`;
    case "fixed_delay": return `${lengthText(trigger.delayMs ?? 0)} after the end of the last run`;
    case "rrule": return `${trigger.rule}, ${trigger.timeZone ?? "UTC"}`;
    case "any": return (trigger.of ?? []).map(triggerWords).join("; or ");
    default: return String(trigger.type);
  }
}

/** `Tue 2026-12-01 02:30:00 +01:00`: a time by the clock of a job's zone, with its weekday. @param {string} text */
function localText(text) {
  const found = /^(\d{4}-\d\d-\d\d)T([\d:.]+)(.*)$/.exec(text);
  if (!found) return text;
  const [, date, time, offset] = found;
  return `${DAYS[new Date(`${date}T00:00Z`).getUTCDay()].slice(0, 3)} ${date} ${time} ${offset === "Z" ? "UTC" : offset}`;
}

/**
 * Fire times, with the rule that put one where it is: a change of clocks, an excluded day.
 * @param {{times: Api.FireTimeDocument[], zone?: string}} props
 */
export function FireTimes({ times, zone }) {
  if (times.length === 0) return html`<p>It fires no more.</p>`;
  return html`<ol class="fires">${times.map((each) => html`<li class=${each.note ? "moved" : ""}>
    <span class="local">${localText(each.local)}</span> <${Time} ms=${each.at} form="relative" label="fires" />
    ${each.dueAt !== undefined && each.dueAt !== each.at && html`<span class="muted"> due ${lengthText(each.dueAt - each.at)} later</span>`}
    ${each.note && html`<br /><span class="note"><span aria-hidden="true">▲ </span><${SafeText} text=${each.note} /></span>`}
  </li>`)}</ol>${zone && html`<p class="muted">By the clock of ${zone}.</p>`}`;
}

const KINDS = [["cron", "at times of the clock (cron)"], ["fixed_rate", "every so often"], ["fixed_delay", "some time after each run"], ["rrule", "by a recurrence rule (RFC 5545)"], ["json", "anything else, as JSON"], ["none", "by hand only"]];
const DIALECTS = [["", "by its fields"], ["unix", "Unix"], ["quartz", "Quartz"], ["spring", "Spring"], ["aws", "AWS"]];
/** The fields of an expression, by its dialect. @type {Record<string, string>} */
const CRON_FIELDS = {
  "": "minute, hour, day, month, weekday", unix: "minute, hour, day, month, weekday",
  quartz: "second, minute, hour, day, month, weekday, and a year if wanted; one of the days is ?",
  spring: "second, minute, hour, day, month, weekday", aws: "minute, hour, day, month, weekday, year; one of the days is ?",
};
const HOUR_MS = 3_600_000;
const UNITS = [["1000", "seconds"], ["60000", "minutes"], ["3600000", "hours"], ["86400000", "days"]];

/**
 * @typedef {object} Fields of a trigger's form, as they are typed
 * @property {string} kind one of KINDS
 * @property {string} expression
 * @property {string} dialect one of DIALECTS
 * @property {string} zone
 * @property {string} count
 * @property {string} unit
 * @property {string} rule
 * @property {WallClockTime} start
 * @property {string} [startText] `start` as RFC 3339
 * @property {string} json
 * @property {{type: string}} [kept] what the trigger has besides, and the form does not show: rules for changes of clocks
 */

/**
 * The fields of a trigger's form, from a trigger; undefined: those of a new job.
 * @param {Api.TriggerDocument | null | undefined} trigger @param {string} zone
 * @returns {Fields}
 */
export function triggerForm(trigger, zone) {
  const nextHour = wallInput(Math.ceil(now() / HOUR_MS) * HOUR_MS, zone);
  const start = { kind: "cron", expression: "0 9 * * MON-FRI", dialect: "", zone, count: "15", unit: "60000", rule: "FREQ=WEEKLY;BYDAY=MO", start: { wall: nextHour, zone }, json: "" };
  if (trigger === undefined) return start;
  if (trigger === null) return { ...start, kind: "none" };
  const { type, ...fields } = trigger;
  const only = (/** @type {string[]} */ ...names) => Object.entries(fields).every(([name, value]) => names.includes(name) || value === null || value === undefined);
  if (type === "cron" && only("expression", "timeZone", "dst", "onExcluded", "dialect")) {
    const { dialect, ...kept } = trigger;
    return { ...start, expression: fields.expression ?? "", dialect: dialect ?? "", zone: fields.timeZone ?? "UTC", kept, json: JSON.stringify(trigger, null, 2) };
  }
  if (type === "fixed_rate" && only("everyMs", "anchor")) return { ...start, kind: type, ...lengthFields(fields.everyMs ?? 0), kept: trigger, json: JSON.stringify(trigger, null, 2) };
  if (type === "fixed_delay" && only("delayMs")) return { ...start, kind: type, ...lengthFields(fields.delayMs ?? 0), json: JSON.stringify(trigger, null, 2) };
  return { ...start, kind: "json", json: JSON.stringify(trigger, null, 2) };
}

/** @param {number} ms */
function lengthFields(ms) {
  const [unit] = [...UNITS].reverse().find(([each]) => ms % Number(each) === 0) ?? ["1000"];
  return { unit, count: String(ms / Number(unit)) };
}

/**
 * The trigger of a form; undefined while it cannot be read.
 * @param {Fields} form
 * @returns {Api.JobForm["trigger"]}
 */
export function triggerOf(form) {
  const ms = Math.round(Number(form.count) * Number(form.unit));
  // Of another kind, nothing of the trigger stays.
  const kept = form.kept?.type === form.kind ? form.kept : {};
  switch (form.kind) {
    case "cron": return { ...kept, type: "cron", expression: form.expression, timeZone: form.zone, ...(form.dialect ? { dialect: /** @type {Api.CronForm["dialect"]} */ (form.dialect) } : {}) };
    case "fixed_rate": return { ...kept, type: "fixed_rate", everyMs: ms };
    case "fixed_delay": return { type: "fixed_delay", delayMs: ms };
    case "rrule": return { type: "rrule", rule: form.rule, timeZone: form.zone, ...(form.start.wall ? { start: form.startText } : {}) };
    case "none": return null;
    default:
      try {
        return JSON.parse(form.json);
      } catch {
        return undefined;
      }
  }
}

/**
 * @param {{form: Fields, onChange: (form: Fields) => void, fields: Map<string, string>}} props
 *   `fields`: messages by the field that they are about
 */
export function TriggerFields({ form, onChange, fields }) {
  const set = (/** @type {keyof Fields} */ name) => (/** @type {string} */ value) => onChange({ ...form, [name]: value });
  const wrong = (/** @type {string} */ name) => fields.get(`trigger.${name}`);
  // What is about no field of the form, such as days of a cron expression, stands at the first one.
  const wrongBut = (/** @type {string[]} */ ...others) => [...fields]
    .filter(([path]) => path.split(".")[0] === "trigger" && !others.includes(path.slice("trigger.".length)))
    .map(([path, text]) => (["trigger", "trigger.expression", "trigger.everyMs", "trigger.delayMs", "trigger.rule"].includes(path) ? text : `${path.slice("trigger.".length)}: ${text}`)).join("; ") || undefined;
  const wrongCron = wrongBut("timeZone", "dialect");
  const fault = form.kind === "json" ? jsonFault(form.json) : null;
  return html`
    <${Choice} id="kind" label="Runs" value=${form.kind} onChange=${set("kind")} options=${KINDS} />
    ${form.kind === "cron" && html`<div class="pair">
      <${TextField} id="expression" label="Cron expression" value=${form.expression} onInput=${set("expression")} error=${wrongCron}
        hint=${(!wrongCron && ["", "unix"].includes(form.dialect) && cronWords(form.expression)) || CRON_FIELDS[form.dialect]} />
      <${Choice} id="dialect" label="Dialect" value=${form.dialect} onChange=${set("dialect")} options=${DIALECTS} error=${wrong("dialect")} />
      <${TextField} id="zone" label="Time zone" value=${form.zone} onInput=${set("zone")} list="zones" error=${wrong("timeZone")} /></div>`}
    ${(form.kind === "fixed_rate" || form.kind === "fixed_delay") && html`<div class="pair">
      <${TextField} id="count" label=${form.kind === "fixed_rate" ? "Every" : "After"} inputmode="numeric" value=${form.count} onInput=${set("count")} error=${wrongBut()} />
      <${Choice} id="unit" label="Unit" value=${form.unit} onChange=${set("unit")} options=${UNITS} /></div>`}
    ${form.kind === "rrule" && html`<div class="pair">
        <${TextField} id="rule" label="Recurrence rule" value=${form.rule} onInput=${set("rule")} error=${wrongBut("timeZone", "start")} />
        <${TextField} id="zone" label="Time zone" value=${form.zone} onInput=${set("zone")} list="zones" error=${wrong("timeZone")} /></div>
      <${ZonedTime} id="start" label="Counted from" value=${form.start} onChange=${(start) => onChange({ ...form, start })} error=${wrong("start")} />`}
    ${form.kind === "json" && html`<div class="field"><label for="trigger-json">Trigger (JSON)</label>
      <textarea id="trigger-json" rows="6" spellcheck=${false} value=${form.json} onInput=${(event) => set("json")(event.currentTarget.value)}></textarea>
      ${fault && html`<p class="field-error">${fault}</p>`}
      ${[...fields].filter(([name]) => name.startsWith("trigger")).map(([name, text]) => html`<p class="field-error">${name}: <${SafeText} text=${text} /></p>`)}</div>`}`;
}

const PREVIEW_AFTER_MS = 300;

/** @typedef {{times?: Api.FireTimeDocument[], error?: ApiError}} Previewed */

/**
 * The next fire times of a trigger as it is typed, or what is wrong with it; null while neither is known.
 * @param {Api.JobForm["trigger"]} trigger @param {string} client @param {string} job
 */
export function usePreview(trigger, client, job) {
  const [answer, setAnswer] = useState(/** @type {Previewed | null} */ (null));
  const me = useMe();
  const key = JSON.stringify([trigger, client, job]);
  useEffect(() => {
    if (trigger === null || trigger === undefined || me === null) {
      setAnswer(null);
      return undefined;
    }
    const abort = new AbortController();
    const timer = setTimeout(async () => {
      try {
        const named = client && job ? { clientId: client, jobId: job } : {};
        const { data } = await call("POST", "/jobs/preview", { body: { trigger, count: 10, ...named }, signal: abort.signal });
        setAnswer({ times: data.times });
      } catch (error) {
        if (error instanceof ApiError) setAnswer({ error });
        else if (!(error instanceof DOMException)) throw error;
      }
    }, PREVIEW_AFTER_MS);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [key, me]);
  return answer;
}

/** @param {{trigger: Api.JobForm["trigger"], answer: Previewed | null}} props */
export function Preview({ trigger, answer }) {
  return html`<div aria-live="polite">
    ${trigger === null && html`<p>It runs only when it is told to.</p>`}
    ${trigger !== null && answer === null && html`<p class="muted">…</p>`}
    ${answer?.times && trigger && html`<p><strong>${triggerWords(trigger)}</strong></p><${FireTimes} times=${answer.times} zone=${/** @type {Trigger} */ (trigger).timeZone} />`}
    ${answer?.error && html`<p class="field-error">${answer.error.problem.errors ? "None: the form says what is wrong." : html`<${SafeText} text=${answer.error.message} />`}</p>`}
  </div>`;
}
