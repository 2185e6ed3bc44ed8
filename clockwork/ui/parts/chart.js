/** Bars over time: a figure with a sentence, the same as a table, and a cursor that arrow keys move and that is read out. */
import { html, useEffect, useRef, useState } from "../lib.js";
import { useObservable } from "../state/observable.js";
import { theme, useZone } from "../state/prefs.js";
import UPlot from "../vendor/uplot.js";
import { Table } from "./table.js";
import { wallText } from "./time.js";

/** @import { Hole } from "../lib.js" */

const HEIGHT = 220;
/** A level up to so many times the highest bar is drawn. */
const LEVEL_TIMES = 4;

/** A token of the style sheet as a colour that a canvas takes. @param {string} name */
function colour(name) {
  const probe = document.createElement("span");
  probe.className = `token-${name}`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

/** @typedef {{at: number, values: number[]}} Point */

/**
 * @param {{title: string, points: Point[], series: {label: string, token: string}[], bucketMs: number,
 *          sentence: Hole, onPick?: (at: number) => void, unit?: string, pickText?: string,
 *          level?: {value: number, label: string, token: string} | null}} props
 *   the series are stacked, in their order; `level` is a line across the bars, to compare them with
 */
export function Bars({ title, points, series, bucketMs, sentence, onPick, unit = "", pickText, level = null }) {
  const box = useRef(/** @type {HTMLElement | null} */ (null));
  const plot = useRef(/** @type {UPlot | null} */ (null));
  const picking = useRef(onPick);
  picking.current = onPick;
  const across = useRef(level);
  across.current = level;
  const [at, setAt] = useState(/** @type {number | null} */ (null));
  const [asTable, setAsTable] = useState(false);
  const dark = useObservable(theme);
  const zone = useZone();
  const [system, setSystem] = useState(0);
  useEffect(() => {
    const query = matchMedia("(prefers-color-scheme: dark)");
    const changed = () => setSystem((count) => count + 1);
    query.addEventListener("change", changed);
    return () => query.removeEventListener("change", changed);
  }, []);

  /** @returns {UPlot.AlignedData} */
  const data = () => {
    const xs = points.map((each) => each.at / 1_000);
    // Drawn from the tallest to the lowest, so that each covers the part below it.
    const sums = series.map((_, number) => points.map((each) => each.values.slice(0, number + 1).reduce((sum, value) => sum + value, 0)));
    return [xs, ...sums.reverse()];
  };

  useEffect(() => {
    if (!box.current || asTable) return undefined;
    const [ink, line] = [colour("muted"), colour("line")];
    const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 }, font: "12px system-ui, sans-serif" };
    const short = bucketMs < 86_400_000;
    // A level far above the bars would press them flat: the sentence tells it then.
    const shownLevel = (/** @type {number} */ most) => (across.current && across.current.value <= LEVEL_TIMES * most ? across.current.value : 0);
    const lineColour = level ? colour(level.token) : "";
    const drawLevel = (/** @type {UPlot} */ chart) => {
      if (!across.current || across.current.value > (chart.scales.y.max ?? 0)) return;
      const { ctx, bbox } = chart;
      const y = chart.valToPos(across.current.value, "y", true);
      ctx.save();
      ctx.strokeStyle = lineColour;
      ctx.lineWidth = 2 * devicePixelRatio;
      ctx.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
      ctx.restore();
    };
    const made = new UPlot({
      width: Math.max(200, box.current.clientWidth), height: HEIGHT,
      tzDate: (seconds) => UPlot.tzDate(new Date(seconds * 1_000), zone),
      padding: [12, 28, 0, 0],
      cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
      legend: { show: false },
      scales: { x: { time: true }, y: { range: (_, __, most) => [0, Math.max(1, most * 1.08, shownLevel(most) * 1.08)] } },
      axes: [
        { ...axis, size: 30, values: (_, splits) => splits.map((each) => { const text = wallText(each * 1_000, zone, { millis: false }); return text.endsWith("00:00:00") || !short ? text.slice(5, 10) : text.slice(11, 16); }) },
        { ...axis, size: 52, values: (_, splits) => splits.map((each) => (Number.isInteger(each) ? each.toLocaleString("en") : "")) },
      ],
      series: [{}, ...[...series].reverse().map((each) => ({
        label: each.label, fill: colour(each.token), stroke: colour(each.token), width: 0, points: { show: false },
        paths: UPlot.paths.bars?.({ size: [0.85, 60], align: 1 }),
      }))],
      hooks: { setCursor: [(chart) => setAt(chart.cursor.idx ?? null)], draw: [drawLevel] },
    }, data(), box.current);
    plot.current = made;
    const size = new ResizeObserver(() => box.current && made.setSize({ width: Math.max(200, box.current.clientWidth), height: HEIGHT }));
    size.observe(box.current);
    const pick = () => made.cursor.idx !== null && made.cursor.idx !== undefined && picking.current?.(points[made.cursor.idx].at);
    made.over.addEventListener("click", pick);
    return () => {
      size.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [asTable, dark, system, zone, bucketMs, series.map((each) => each.label).join(), level?.token]);
  useEffect(() => plot.current?.setData(data()), [points, level?.value]);

  const move = (/** @type {KeyboardEvent} */ event) => {
    const step = /** @type {Record<string, number | undefined>} */ ({ ArrowLeft: -1, ArrowRight: 1, Home: -points.length, End: points.length })[event.key];
    if (event.key === "Enter" && at !== null) onPick?.(points[at].at);
    if (step === undefined || !plot.current) return;
    event.preventDefault();
    const next = Math.min(points.length - 1, Math.max(0, (at ?? -1) + step));
    plot.current.setCursor({ left: plot.current.valToPos(points[next].at / 1_000 + bucketMs / 2_000, "x"), top: 10 });
    setAt(next);
  };
  const levelSeen = level !== null && level.value <= LEVEL_TIMES * Math.max(0, ...points.map((each) => each.values.reduce((sum, value) => sum + value, 0)));
  const readout = at !== null && points[at] ? `${wallText(points[at].at, zone, { millis: false })}: ${series.map((each, number) => `${points[at].values[number].toLocaleString("en")} ${each.label}`).join(", ")}${unit}` : "";
  const rows = points.filter((each) => each.values.some((value) => value > 0));
  return html`<figure>
    <figcaption>${sentence}</figcaption>
    ${asTable
      ? html`<div class="short"><${Table} caption=${title} rows=${rows} keyOf=${(row) => String(row.at)} columns=${[
          { id: "at", label: `From (${zone})`, head: true, cell: (/** @type {Point} */ row) => (onPick ? html`<button type="button" class="small quiet" onClick=${() => onPick(row.at)}>${wallText(row.at, zone, { millis: false })}</button>` : wallText(row.at, zone, { millis: false })) },
          ...series.map((each, number) => ({ id: each.label, label: each.label, className: "number", cell: (/** @type {Point} */ row) => row.values[number].toLocaleString("en") })),
        ]} /></div>`
      : html`<div class="chart" ref=${box} tabindex="0" role="application" aria-roledescription="chart" aria-label=${`${title}. Arrow keys move from bar to bar${onPick ? `, Enter: ${pickText ?? "show it"}` : ""}.`} onKeyDown=${move}></div>`}
    <div class="chart-foot">
      <p class="chart-readout" aria-live="polite">${readout || html`<span class="muted">${zone}</span>`}</p>
      ${(series.length > 1 || levelSeen) && html`<ul class="legend">${series.map((each) => html`<li><span class=${`swatch token-${each.token}`} aria-hidden="true"></span>${each.label}</li>`)}${levelSeen && html`<li><span class=${`swatch-level token-${level.token}`} aria-hidden="true"></span>${level.label}</li>`}</ul>`}
      <button type="button" class="small quiet" onClick=${() => setAsTable(!asTable)}>${asTable ? "As a chart" : "As a table"}</button>
    </div>
  </figure>`;
}
