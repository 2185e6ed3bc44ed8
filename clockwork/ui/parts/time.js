/** Times: in the zone that the reader chose, with milliseconds, and relative to the server's now. */
import { html, useEffect, useRef } from "../lib.js";
import { now, useNow } from "../state/clock.js";
import { createObservable, useObservable } from "../state/observable.js";
import { isZone, timeForm, useZone, zone as chosenZone } from "../state/prefs.js";
import { intoFocus } from "./dialog.js";
import { Copy } from "./text.js";

/** @type {Map<string, Intl.DateTimeFormat>} */
const formats = new Map();

/** @param {string} zone @param {number} ms */
function partsIn(zone, ms) {
  let format = formats.get(zone);
  if (!format) {
    format = new Intl.DateTimeFormat("en-GB", {
      timeZone: zone, calendar: "iso8601", numberingSystem: "latn", hourCycle: "h23", year: "numeric", month: "2-digit",
      day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit", timeZoneName: "longOffset",
    });
    formats.set(zone, format);
  }
  const parts = /** @type {Record<Intl.DateTimeFormatPartTypes, string>} */ ({});
  for (const { type, value } of format.formatToParts(ms)) parts[type] = value;
  return parts;
}

/** The offset of a zone at a time, such as `+01:00`; `Z` for none. @param {string} zone @param {number} ms */
export function offsetAt(zone, ms) {
  const text = partsIn(zone, ms).timeZoneName.replace("GMT", "").replace("\u2212", "-");
  return text === "" ? "Z" : text;
}

/** @param {string} zone @param {number} ms */
export function offsetMsAt(zone, ms) {
  const text = offsetAt(zone, ms);
  if (text === "Z") return 0;
  const [hours, minutes, seconds = 0] = text.slice(1).split(":").map(Number);
  return (text[0] === "-" ? -1 : 1) * ((hours * 60 + (minutes || 0)) * 60 + Number(seconds)) * 1_000;
}

/** @param {number} ms */
const milli = (ms) => String(((ms % 1_000) + 1_000) % 1_000).padStart(3, "0");

/** `2030-01-31 13:00:00.000`, by the clock of the zone. @param {number} ms @param {string} zone */
export function wallText(ms, zone, { millis = true } = {}) {
  const p = partsIn(zone, ms);
  return `${p.year}-${p.month}-${p.day} ${p.hour}:${p.minute}:${p.second}${millis ? `.${milli(ms)}` : ""}`;
}

/** RFC 3339 with the offset of the zone. @param {number} ms @param {string} zone */
export const rfc3339 = (ms, zone) => `${wallText(ms, zone).replace(" ", "T")}${offsetAt(zone, ms)}`;

/** Only the time of day, with the date where it is not the same day as now. @param {number} ms @param {string} zone */
export function shortText(ms, zone) {
  const text = wallText(ms, zone);
  return wallText(now(), zone).slice(0, 10) === text.slice(0, 10) ? text.slice(11) : text;
}

/** @type {[string, number][]} */
const UNITS = [
  ["d", 86_400_000], ["h", 3_600_000], ["min", 60_000], ["s", 1_000],
];

/** A length of time in its two largest units: `3 d 4 h`. @param {number} ms */
export function lengthText(ms) {
  let left = Math.abs(ms);
  if (left < 1_000) return `${Math.round(left)} ms`;
  const parts = [];
  for (const [unit, size] of UNITS) {
    const count = Math.floor(left / size);
    if (count === 0 && parts.length === 0) continue;
    left -= count * size;
    if (count > 0) parts.push(`${count} ${unit}`);
    if (parts.length === 2 || unit === "s" || count === 0) break;
  }
  return parts.join(" ");
}

/** @param {number} ms */
export function relativeText(ms, at = now()) {
  const away = ms - at;
  if (Math.abs(away) < 1_000) return "now";
  return away > 0 ? `in ${lengthText(away)}` : `${lengthText(away)} ago`;
}

/** The time whose other forms are shown: they are one element for the whole page. */
const opened = createObservable(/** @type {{ms: number, by: Element} | null} */ (null));

/**
 * A time. A click shows it as UTC, RFC 3339 and epoch ms, each to copy.
 * @param {{ms: number, form?: "both" | "absolute" | "relative", label?: string}} props
 */
export function Time({ ms, form, label }) {
  const zone = useZone();
  const chosen = useObservable(timeForm);
  const shown = form ?? chosen;
  useNow(shown === "absolute" ? 3_600_000 : 1_000);
  const absolute = wallText(ms, zone);
  const offset = offsetAt(zone, ms);
  const relative = relativeText(ms);
  const all = `${absolute} ${zone} (${offset}), ${new Date(ms).toISOString()}, ${ms} ms`;
  return html`<button type="button" class="time" title=${all} aria-haspopup="dialog"
      onClick=${(event) => opened.set({ ms, by: event.currentTarget })}>
    ${label && html`<span class="sr-only">${label} </span>`}
    <time dateTime=${new Date(ms).toISOString()}>
      ${shown !== "relative" && html`<span class="absolute">${absolute}</span>${" "}<span class="offset">${offset === "Z" ? "UTC" : offset}</span>`}
      ${shown === "both" && " "}
      ${shown !== "absolute" && html`<span class="relative">${relative}</span>`}
    </time>
  </button>`;
}

/** The other forms of the time that was clicked. */
export function TimeForms() {
  const open = useObservable(opened);
  const zone = useZone();
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  useEffect(() => {
    if (open && dialog.current && !dialog.current.open) {
      dialog.current.showModal();
      intoFocus(dialog.current);
    }
  }, [open]);
  if (!open) return null;
  const { ms, by } = open;
  const forms = [
    [zone, `${wallText(ms, zone)} ${offsetAt(zone, ms)}`],
    ["UTC", `${wallText(ms, "UTC")}Z`],
    ["RFC 3339", rfc3339(ms, zone)],
    ["Epoch ms", String(ms)],
  ];
  const end = () => {
    opened.set(null);
    if (by instanceof HTMLElement && by.isConnected) by.focus();
  };
  return html`<dialog ref=${dialog} class="narrow" aria-labelledby="time-title" onClose=${end}
      onClick=${(event) => event.target === dialog.current && dialog.current?.close()}>
    <h2 id="time-title">${relativeText(ms)}</h2>
    <dl class="facts">${forms.map(([name, text]) => html`<dt>${name}</dt><dd><code>${text}</code> <${Copy} text=${text} label="Copy" /></dd>`)}</dl>
    <div class="buttons"><button type="button" data-focus onClick=${() => dialog.current?.close()}>Close</button></div>
  </dialog>`;
}

// --- from a wall-clock time to the instant

const WALL = /^(\d{4})-(\d{2})-(\d{2})[T ](\d{2}):(\d{2})(?::(\d{2})(?:\.(\d{1,3}))?)?$/;

/**
 * The instants that a wall-clock time names in a zone: none where clocks were put forward over it, two where it comes twice.
 * @param {string} text @param {string} zone one that the browser knows
 * @returns {number[] | null} null: it is no time
 */
export function instantsOf(text, zone) {
  const found = WALL.exec(text.trim());
  if (!found) return null;
  const [, year, month, day, hour, minute, second = "0", millis = "0"] = found;
  const asUtc = Date.UTC(+year, +month - 1, +day, +hour, +minute, +second, +millis.padEnd(3, "0"));
  if (Number.isNaN(asUtc)) return null;
  const again = new Date(asUtc);
  if (again.getUTCMonth() !== +month - 1 || again.getUTCDate() !== +day || again.getUTCHours() !== +hour) return null;
  const wanted = wallText(asUtc, "UTC");
  const offsets = new Set([offsetMsAt(zone, asUtc - 86_400_000), offsetMsAt(zone, asUtc + 86_400_000)]);
  return [...offsets].map((each) => asUtc - each).filter((each) => wallText(each, zone) === wanted).sort((a, b) => a - b);
}

/** What a field for a wall-clock time starts with. @param {number} ms @param {string} zone */
export const wallInput = (ms, zone) => wallText(ms, zone, { millis: ms % 1_000 !== 0 }).replace(" ", "T");

export const ZONES = typeof Intl.supportedValuesOf === "function" ? ["UTC", ...Intl.supportedValuesOf("timeZone")] : ["UTC"];

/**
 * @typedef {{wall: string, zone: string, choice?: number}} WallClockTime `zone`: as it is typed, so maybe unfinished and none;
 *   `choice`: which of two instants that it names
 */

/**
 * What names an instant in the zone of a field, or in the reader's where the field's is none.
 * @param {number} ms @param {string} zone
 * @returns {WallClockTime}
 */
export function wallClockOf(ms, zone) {
  const known = isZone(zone) ? zone : chosenZone();
  return { wall: wallInput(ms, known), zone: known };
}

/**
 * A wall-clock time and its zone, with the instant that they name. A time that does not exist, or exists twice, is to be decided.
 * @param {{id: string, label: string, value: WallClockTime, onChange: (value: WallClockTime) => void, error?: string,
 *          required?: boolean, pastText?: string}} props `pastText`: said of an instant before now
 */
export function ZonedTime({ id, label, value, onChange, error, required = false, pastText }) {
  const at = useNow();
  const { wall, zone } = value;
  const known = isZone(zone);
  const found = wall && known ? instantsOf(wall, zone) : [];
  const before = found && found.length === 0 && wall && known ? nearestAfterGap(wall, zone) : null;
  const ms = instantOf(value);
  return html`<fieldset class="zoned" id=${id} aria-describedby=${`${id}-said`}>
    <legend>${label}</legend>
    <label>Date and time
      <input type="datetime-local" step="0.001" name=${id} required=${required} value=${wall} aria-invalid=${error ? "true" : undefined}
        onInput=${(event) => onChange({ ...value, wall: event.currentTarget.value, choice: undefined })} />
    </label>
    <div class="zone-field"><label>Time zone
        <input list="zones" value=${zone} spellcheck=${false} autocomplete="off" aria-invalid=${known ? undefined : "true"} aria-describedby=${known ? undefined : `${id}-zone-error`}
          onInput=${(event) => onChange({ ...value, zone: event.currentTarget.value.trim(), choice: undefined })} />
      </label>
      ${!known && html`<p class="field-error" id=${`${id}-zone-error`}>${zone ? html`${zone} is no time zone that this browser knows.` : "A time zone is needed, such as UTC."}</p>`}
    </div>
    <div id=${`${id}-said`} class="said" aria-live="polite">
      ${error && html`<p class="field-error">${error}</p>`}
      ${found === null && html`<p class="field-error">This is no time.</p>`}
      ${before !== null && html`<p class="field-error">Clocks in ${zone} were put forward over this time: it does not exist.${" "}
        <button type="button" class="small" onClick=${() => onChange({ ...value, wall: wallInput(before, zone) })}>
          Use ${wallText(before, zone, { millis: false })}</button></p>`}
      ${found && found.length === 2 && html`<div role="radiogroup" aria-label="Which of the two">
        <p>Clocks in ${zone} are put back: this time comes twice.</p>
        ${found.map((each, number) => html`<label class="choice"><input type="radio" name=${`${id}-which`} checked=${value.choice === number}
          onChange=${() => onChange({ ...value, choice: number })} /> the ${number === 0 ? "first" : "second"}, ${offsetAt(zone, each)}</label>`)}
      </div>`}
      ${ms !== null && html`<p class="muted"><span>${rfc3339(ms, zone)}</span>, ${relativeText(ms, at)}</p>`}
      ${ms !== null && pastText && ms < at && html`<p class="status-warn"><span aria-hidden="true">◆ </span>${pastText}</p>`}
    </div>
  </fieldset>`;
}

/** @param {string} wall @param {string} zone */
function nearestAfterGap(wall, zone) {
  const found = WALL.exec(wall.trim());
  if (!found) return null;
  const asUtc = Date.parse(`${wall.trim().replace(" ", "T")}Z`);
  if (Number.isNaN(asUtc)) return null;
  return asUtc - offsetMsAt(zone, asUtc - 86_400_000);
}

/** The instant of a `ZonedTime`'s value; null while it is not decided. @param {WallClockTime} value @returns {number | null} */
export function instantOf({ wall, zone, choice }) {
  if (!wall || !isZone(zone)) return null;
  const found = instantsOf(wall, zone);
  if (!found || found.length === 0) return null;
  if (found.length === 1) return found[0];
  return choice === undefined ? null : found[choice];
}

/** RFC 3339 of what stands in a field for a date and time: the browser writes that by its own language. @param {string} wall @param {string} zone */
export function wallHint(wall, zone) {
  const ms = instantOf({ wall, zone, choice: 0 });
  return ms === null ? undefined : rfc3339(ms, zone);
}

/** All zones, once for every field. */
export const ZoneList = () => html`<datalist id="zones">${ZONES.map((each) => html`<option value=${each} />`)}</datalist>`;
