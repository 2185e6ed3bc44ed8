/** Figures of the last minutes and hours: rates, and how late deliveries were. */
import { html, useMemo, useState } from "../lib.js";
import { useZone } from "../state/prefs.js";
import { Table } from "./table.js";
import { plural } from "./text.js";
import { lengthText, wallText } from "./time.js";

/** Bounds of the rows of the heat map, in ms; the last row has what is later. */
const ROWS_MS = [10, 100, 1_000, 10_000, 60_000, 600_000];
export const LATE_MS = 1_000;
const LEVELS = 6;
const CELL = { width: 10, height: 16, left: 74, foot: 18 };

/** @template {string} N @param {{[name in N]?: number}[]} list @param {N} name @returns {number} */
export const sumOf = (list, name) => list.reduce((sum, each) => sum + (each[name] ?? 0), 0);

/** Deliveries that were later than a bound. @param {number[]} lateness @param {number[]} boundsMs @param {number} ms */
export function laterThan(lateness, boundsMs, ms) {
  return lateness.reduce((sum, count, number) => sum + ((boundsMs[number] ?? Infinity) > ms ? count : 0), 0);
}

/**
 * The bound that a share of the deliveries kept, in words; null without any.
 * @param {number[]} lateness @param {number[]} boundsMs @param {number} share
 */
export function quantileText(lateness, boundsMs, share) {
  const all = lateness.reduce((sum, count) => sum + count, 0);
  if (all === 0) return null;
  let seen = 0;
  for (const [number, count] of lateness.entries()) {
    seen += count;
    if (seen >= all * share) return boundsMs[number] === undefined ? `over ${lengthText(/** @type {number} */ (boundsMs.at(-1)))}` : `≤ ${lengthText(boundsMs[number])}`;
  }
  return null;
}

/** @param {number} boundMs */
const rowOf = (boundMs) => {
  const found = ROWS_MS.findIndex((each) => boundMs <= each);
  return found === -1 ? ROWS_MS.length : found;
};
/** @param {number} row */
const rowText = (row) => (row === ROWS_MS.length ? `over ${lengthText(/** @type {number} */ (ROWS_MS.at(-1)))}` : `≤ ${lengthText(ROWS_MS[row])}`);

/** @typedef {{at: number, rows: number[], column: number}} Cell deliveries of one step, by row */

/**
 * Lateness by time: a column a step, a row a range of lateness, darker where there were more deliveries.
 * @param {{minutes: Api.StepDocument[], boundsMs: number[], from: number, to: number, stepMs: number}} props
 */
export function HeatMap({ minutes, boundsMs, from, to, stepMs }) {
  const zone = useZone();
  const [asTable, setAsTable] = useState(false);
  const [at, setAt] = useState(/** @type {{column: number, row: number} | null} */ (null));
  const columns = Math.max(1, Math.ceil((to - from) / stepMs));
  const cells = useMemo(() => minutes.map((each) => {
    const rows = /** @type {number[]} */ (Array(ROWS_MS.length + 1).fill(0));
    each.lateness.forEach((count, number) => (rows[rowOf(boundsMs[number] ?? Infinity)] += count));
    return { at: each.at, rows, column: Math.floor((each.at - from) / stepMs) };
  }), [minutes]);
  const most = Math.max(1, ...cells.flatMap((each) => each.rows));
  const level = (/** @type {number} */ count) => (count === 0 ? 0 : 1 + Math.min(LEVELS - 1, Math.floor((Math.log(count + 1) / Math.log(most + 1)) * (LEVELS - 0.01))));
  const all = cells.reduce((sum, each) => sum + each.rows.reduce((a, b) => a + b, 0), 0);
  const late = cells.reduce((sum, each) => sum + each.rows.slice(3).reduce((a, b) => a + b, 0), 0);
  const worst = cells.reduce((found, each) => {
    const row = each.rows.findLastIndex((count) => count > 0);
    return row > (found?.row ?? -1) ? { row, at: each.at } : found;
  }, /** @type {{row: number, at: number} | null} */ (null));
  const width = CELL.left + columns * CELL.width;
  const height = (ROWS_MS.length + 1) * CELL.height + CELL.foot;
  const every = Math.ceil(columns / 8);
  const whenText = (/** @type {number} */ ms) => wallText(ms, zone, { millis: false }).slice(0, 16);
  const countAt = (/** @type {{column: number, row: number}} */ { column, row }) => cells.find((each) => each.column === column)?.rows[row] ?? 0;
  const place = (/** @type {number} */ column, /** @type {number} */ row) => {
    const next = { column: Math.min(columns - 1, Math.max(0, column)), row: Math.min(ROWS_MS.length, Math.max(0, row)) };
    // A mouse that moves within a field draws nothing anew.
    setAt((before) => (before?.column === next.column && before.row === next.row ? before : next));
  };
  const move = (/** @type {KeyboardEvent} */ event) => {
    const step = /** @type {Record<string, number[] | undefined>} */ ({ ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1], Home: [-columns, 0], End: [columns, 0] })[event.key];
    if (step === undefined) return;
    event.preventDefault();
    // The latest step first, and the row that is on time: from there on it is looked around.
    if (at === null) place(columns - 1, 0);
    else place(at.column + step[0], at.row + step[1]);
  };
  const point = (/** @type {MouseEvent & {currentTarget: Element}} */ event) => {
    const box = event.currentTarget.getBoundingClientRect();
    const scale = width / box.width;
    const column = Math.floor(((event.clientX - box.left) * scale - CELL.left) / CELL.width);
    const row = ROWS_MS.length - Math.floor(((event.clientY - box.top) * scale) / CELL.height);
    if (column >= 0 && column < columns && row >= 0 && row <= ROWS_MS.length) place(column, row);
    else setAt(null);
  };
  const readout = at === null ? "" : `${whenText(from + at.column * stepMs)}, ${rowText(at.row)}: ${plural(countAt(at), "delivery", "deliveries")}`;
  const sentence = all === 0 || worst === null
    ? html`Nothing was delivered in this time.`
    : html`${((1 - late / all) * 100).toFixed(late === 0 ? 0 : 2)} % of ${all.toLocaleString("en")} deliveries within ${lengthText(LATE_MS)} of their time; the latest ${rowText(worst.row)}, at ${whenText(worst.at)}.`;
  return html`<figure>
    <figcaption>${sentence}</figcaption>
    ${asTable
      ? html`<div class="short"><${Table} caption="Deliveries by lateness" rows=${cells} keyOf=${(row) => String(row.at)} columns=${[
          { id: "at", label: `From (${zone})`, head: true, cell: (/** @type {Cell} */ row) => whenText(row.at) },
          ...Array.from({ length: ROWS_MS.length + 1 }, (_, row) => ({ id: String(row), label: rowText(row), className: "number", cell: (/** @type {Cell} */ each) => each.rows[row].toLocaleString("en") })),
        ]} /></div>`
      : html`<div class="heat-box" tabindex="0" role="application" aria-roledescription="chart" aria-label="Deliveries by time and lateness. Arrow keys move from field to field." onKeyDown=${move}>
        <svg class="heat-map" viewBox=${`0 0 ${width} ${height}`} aria-hidden="true" onMouseMove=${point} onMouseLeave=${() => setAt(null)}>
          ${Array.from({ length: ROWS_MS.length + 1 }, (_, row) => {
            // The longest lateness on top, as a chart has it.
            const y = (ROWS_MS.length - row) * CELL.height;
            return html`<text x=${CELL.left - 6} y=${y + 12} text-anchor="end" class="heat-text">${rowText(row)}</text>
              <rect x=${CELL.left} y=${y} width=${columns * CELL.width} height=${CELL.height - 1} class="heat heat-0" />
              ${cells.filter((each) => each.rows[row] > 0).map((each) => html`<rect x=${CELL.left + each.column * CELL.width} y=${y} width=${CELL.width - 1} height=${CELL.height - 1} class=${`heat heat-${level(each.rows[row])}${row > 2 ? " heat-late" : ""}`} />`)}`;
          })}
          ${Array.from({ length: Math.ceil(columns / every) }, (_, number) => html`<text x=${CELL.left + number * every * CELL.width} y=${height - 4} class="heat-text">${wallText(from + number * every * stepMs, zone).slice(11, 16)}</text>`)}
          ${at !== null && html`<rect x=${CELL.left + at.column * CELL.width} y=${(ROWS_MS.length - at.row) * CELL.height} width=${CELL.width} height=${CELL.height} class="heat-at" />`}
        </svg></div>`}
    <div class="chart-foot"><p class="chart-readout" aria-live="polite">${readout || html`<span class="muted">${zone}, each ${lengthText(stepMs)}</span>`}</p><button type="button" class="small quiet" onClick=${() => setAsTable(!asTable)}>${asTable ? "As a map" : "As a table"}</button></div>
  </figure>`;
}
