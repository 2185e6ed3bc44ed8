/** What comes: due per minute for the next hours and days, by topic, client and shard. */
import { html } from "../lib.js";
import { Bars } from "../parts/chart.js";
import { AsOf, View } from "../parts/states.js";
import { Table } from "../parts/table.js";
import { plural } from "../parts/text.js";
import { Time, lengthText, wallText } from "../parts/time.js";
import { call } from "../state/api.js";
import { now } from "../state/clock.js";
import { useResource } from "../state/poll.js";
import { useZone } from "../state/prefs.js";
import { go, href } from "../state/url.js";

/** @import { Hole } from "../lib.js" */
/** @import { Column } from "../parts/table.js" */

const EVERY_MS = 30_000;
/** @type {Record<string, {text: string, ms: number, bucketMs: number, bucketText: string}>} */
export const RANGES = {
  "": { text: "1 hour", ms: 3_600_000, bucketMs: 60_000, bucketText: "minute" },
  day: { text: "24 hours", ms: 86_400_000, bucketMs: 900_000, bucketText: "15 minutes" },
  week: { text: "7 days", ms: 7 * 86_400_000, bucketMs: 3_600_000, bucketText: "hour" },
};
export const SERIES = [{ label: "counted", token: "accent" }, { label: "estimated", token: "edge" }];
const HOT = 10;
/** One answer has it all, so what is looked at is told at its end; its bound is known before. */
export const COST_BOUND_TEXT = "at most 150 read units";
const MINUTE_MS = 60_000;

/**
 * Reads a forecast of the next hour, day or week. It begins now, which the service takes for itself: then it also counts what
 * is overdue, and all who look at the same hour share one answer.
 * @param {string} range one of RANGES @param {Api.Query<"GET", "/forecast">} query @param {AbortSignal} signal
 * @param {Record<string, string>} [headers]
 */
export async function readForecast(range, query, signal, headers) {
  const { ms, bucketMs } = RANGES[range] ?? RANGES[""];
  const to = range ? Math.ceil((now() + ms) / bucketMs) * bucketMs : null;
  const answer = await call("GET", "/forecast", { query: { ...query, to, bucketMs: range ? bucketMs : null }, signal, headers });
  return { ...answer.data, units: answer.readUnits ?? answer.data.readUnits };
}

/** @param {Api.ForecastDocument} forecast */
export const pointsOf = (forecast) => forecast.buckets.map((each) => ({ at: each.at, values: each.exact ? [each.count, 0] : [0, each.count] }));

/**
 * The line across the bars: the most that was delivered in a minute lately, for the width of a bucket. It is what the cluster
 * is known to manage, not what it could. null: the service does not know.
 * @param {Api.ForecastDocument} forecast
 */
export const levelOf = (forecast) => forecast.mostDelivered
  ? { value: (forecast.mostDelivered.count * forecast.bucketMs) / MINUTE_MS, label: "most delivered", token: "warn" }
  : null;

/** What the bars say, in one sentence. @param {{forecast: Api.ForecastDocument}} props */
export function ForecastSentence({ forecast }) {
  const total = forecast.buckets.reduce((sum, each) => sum + each.count, 0);
  const peak = forecast.buckets.reduce((most, each) => (each.count > (most?.count ?? 0) ? each : most), /** @type {Api.BucketDocument | null} */ (null));
  return html`<span>${total.toLocaleString("en")} due within ${lengthText(forecast.to - forecast.from)}${peak && html`; most in ${lengthText(forecast.bucketMs)}: <strong>${peak.count.toLocaleString("en")}</strong> at <${When} ms=${peak.at} />`}${forecast.overdue !== undefined && forecast.overdue > 0 && `; ${forecast.overdue.toLocaleString("en")} overdue`}.${!forecast.exact && forecast.exactTo !== undefined && html` Counted up to <${Time} ms=${forecast.exactTo} form="relative" />, estimated beyond.`}${forecast.mostDelivered && html` <${Level} forecast=${forecast} />`}</span>`;
}

/** @param {{forecast: Api.ForecastDocument}} props with `mostDelivered` */
function Level({ forecast }) {
  const { count, at, since } = /** @type {Api.MostDeliveredDocument} */ (forecast.mostDelivered);
  const above = forecast.buckets.filter((each) => each.count > (levelOf(forecast)?.value ?? Infinity)).length;
  return html`<span>The most delivered in a minute since <${When} ms=${since} />: ${count.toLocaleString("en")}, at <${When} ms=${at} />${above > 0 && html`; <strong>${plural(above, "bar is", "bars are")} above it</strong>`}.</span>`;
}

/** @param {{params: URLSearchParams}} props */
export function ForecastPage({ params }) {
  const range = /** @type {string} */ (String(params.get("range")) in RANGES ? params.get("range") : "");
  const query = { clientId: params.get("client"), topic: params.get("topic") };
  const found = useResource(JSON.stringify(["forecast", range, query]), (signal) => readForecast(range, query, signal), { everyMs: EVERY_MS });
  const forecast = found.data;
  const link = (/** @type {Record<string, string>} */ changes) => href("/forecast", { range, client: query.clientId, topic: query.topic, ...changes });
  const pick = (/** @type {number} */ at) => forecast && go(href("/upcoming", { client: query.clientId, topic: query.topic, from: at, to: at + forecast.bucketMs }));
  const filtered = query.clientId || query.topic;
  return html`
    <h1 tabindex="-1">Forecast</h1>
    <nav class="tabs" aria-label="How far">${Object.entries(RANGES).map(([name, { text }]) => html`<a href=${link({ range: name })} aria-current=${range === name ? "page" : undefined}>${text}</a>`)}</nav>
    ${filtered && html`<p>Only ${query.clientId && html`client <strong>${query.clientId}</strong>`}${query.clientId && query.topic && ", "}${query.topic && html`topic <strong>${query.topic}</strong>`}. <a href=${link({ client: "", topic: "" })}>All</a></p>`}
    <${View} of=${found} doing="counting" bound=${COST_BOUND_TEXT}>${forecast && html`
      <${AsOf} of=${found} live readUnits=${forecast.units}><span>, ${plural(forecast.lookedAt, "row")} looked at</span><//>
      <section class="card" aria-labelledby="bars-title"><h2 id="bars-title">Due per ${RANGES[range].bucketText}</h2>
        <${Bars} title="Due schedules" points=${pointsOf(forecast)} series=${SERIES} bucketMs=${forecast.bucketMs} level=${levelOf(forecast)} sentence=${html`<${ForecastSentence} forecast=${forecast} />`} onPick=${pick} pickText="show what is due then" /></section>
      <div class="columns narrow">
        <section class="card broad" aria-labelledby="hot-title"><h2 id="hot-title">${range ? "Busiest times" : "Hot minutes"}</h2>
          <${Counts} caption="Busiest times" label="From" rows=${[...forecast.buckets].filter((each) => each.count > 0).sort((a, b) => b.count - a.count).slice(0, HOT)} keyOf=${(/** @type {Api.BucketDocument} */ row) => String(row.at)}
            cell=${(/** @type {Api.BucketDocument} */ row) => html`<a href=${href("/upcoming", { client: query.clientId, topic: query.topic, from: row.at, to: row.at + forecast.bucketMs })}><${When} ms=${row.at} /></a>${!row.exact && html` <span class="muted">estimated</span>`}`}
            more=${levelOf(forecast) === null ? [] : [{ id: "share", label: "Of most delivered", className: "number", cell: (/** @type {Api.BucketDocument} */ row) => shareText(row.count / (levelOf(forecast)?.value ?? Infinity)) }]} /></section>
        <section class="card" aria-labelledby="topics-title"><h2 id="topics-title">By topic</h2>
          <${Counts} caption="By topic" label="Topic" rows=${forecast.byTopic} others=${forecast.otherTopics} keyOf=${(/** @type {Api.TopicCountDocument} */ row) => row.topic} cell=${(/** @type {Api.TopicCountDocument} */ row) => html`<a href=${link({ topic: row.topic })}>${row.topic}</a>`} /></section>
        <section class="card" aria-labelledby="clients-title"><h2 id="clients-title">By client</h2>
          <${Counts} caption="By client" label="Client" rows=${forecast.byClient} others=${forecast.otherClients} keyOf=${(/** @type {Api.ClientCountDocument} */ row) => row.clientId} cell=${(/** @type {Api.ClientCountDocument} */ row) => html`<a href=${link({ client: row.clientId })}>${row.clientId}</a>`} /></section>
        <section class="card" aria-labelledby="shards-title"><h2 id="shards-title">By shard</h2>
          <${Counts} caption="By shard" label="Shard" rows=${forecast.byShard} keyOf=${(/** @type {Api.ShardCountDocument} */ row) => String(row.shard)} cell=${(/** @type {Api.ShardCountDocument} */ row) => row.shard} /></section>
      </div>`}<//>`;
}

/** A whole minute; the date only where it is not today's. @param {{ms: number}} props */
function When({ ms }) {
  const zone = useZone();
  const text = wallText(ms, zone).slice(0, 16);
  return html`<span>${wallText(now(), zone).startsWith(text.slice(0, 10)) ? text.slice(11) : text}</span>`;
}

/** A share of the most delivered; what is above it stands out by a word and a shape. @param {number} share */
const shareText = (share) => (share > 1
  ? html`<span class="status status-warn"><span aria-hidden="true">▲ </span>${percent(share)}, above</span>`
  : percent(share));
/** @param {number} share */
const percent = (share) => share > 0 && share < 0.001 ? "< 0.1 %" : `${(share * 100).toLocaleString("en", { maximumFractionDigits: share < 0.1 ? 1 : 0 })} %`;

/**
 * @param {{caption: string, label: string, rows?: {count: number}[], others?: number, keyOf: (row: any) => string,
 *          cell: (row: any) => Hole, more?: Column[]}} props
 *   each table has rows of its own; `more`: further columns
 */
function Counts({ caption, label, rows = [], others = 0, keyOf, cell, more = [] }) {
  if (rows.length === 0) return html`<p class="muted">Nothing.</p>`;
  return html`<${Table} compact caption=${caption} rows=${rows} keyOf=${keyOf} columns=${[
    { id: "name", label, head: true, className: "key", cell },
    { id: "count", label: "Due", className: "number", cell: (/** @type {{count: number}} */ row) => row.count.toLocaleString("en") },
    ...more,
  ]} />${others > 0 && html`<p class="muted">and ${others.toLocaleString("en")} in others</p>`}`;
}
