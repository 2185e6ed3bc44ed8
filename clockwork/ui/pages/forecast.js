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

const EVERY_MS = 30_000;
export const RANGES = {
  "": { text: "1 hour", ms: 3_600_000, bucketMs: 60_000 },
  day: { text: "24 hours", ms: 86_400_000, bucketMs: 900_000 },
  week: { text: "7 days", ms: 7 * 86_400_000, bucketMs: 3_600_000 },
};
export const SERIES = [{ label: "counted", token: "accent" }, { label: "estimated", token: "edge" }];
const HOT = 10;

/**
 * Reads a forecast of the next hour, day or week. It begins now, which the service takes for itself: then it also counts what
 * is overdue, and all who look at the same hour share one answer.
 */
export async function readForecast(range, query, signal) {
  const { ms, bucketMs } = RANGES[range] ?? RANGES[""];
  const to = range ? Math.ceil((now() + ms) / bucketMs) * bucketMs : null;
  const answer = await call("GET", "/forecast", { query: { ...query, to, bucketMs: range ? bucketMs : null }, signal });
  return { ...answer.data, units: answer.readUnits ?? answer.data.readUnits };
}

export const pointsOf = (forecast) => forecast.buckets.map((each) => ({ at: each.at, values: each.exact ? [each.count, 0] : [0, each.count] }));

/** What the bars say, in one sentence. */
export function ForecastSentence({ forecast }) {
  const total = forecast.buckets.reduce((sum, each) => sum + each.count, 0);
  const peak = forecast.buckets.reduce((most, each) => (each.count > (most?.count ?? 0) ? each : most), null);
  return html`<span>${total.toLocaleString("en")} due within ${lengthText(forecast.to - forecast.from)}${peak && html`; most in ${lengthText(forecast.bucketMs)}: <strong>${peak.count.toLocaleString("en")}</strong> at <${Time} ms=${peak.at} form="absolute" />`}${forecast.overdue > 0 && `; ${forecast.overdue.toLocaleString("en")} overdue`}.${!forecast.exact && forecast.exactTo !== undefined && html` Counted up to <${Time} ms=${forecast.exactTo} form="relative" />, estimated beyond.`}</span>`;
}

export function ForecastPage({ params }) {
  const range = params.get("range") in RANGES ? params.get("range") : "";
  const query = { clientId: params.get("client"), topic: params.get("topic") };
  const found = useResource(JSON.stringify(["forecast", range, query]), (signal) => readForecast(range, query, signal), { everyMs: EVERY_MS });
  const forecast = found.data;
  const link = (changes) => href("/forecast", { range, client: query.clientId, topic: query.topic, ...changes });
  const pick = (at) => go(href("/upcoming", { client: query.clientId, topic: query.topic, from: at, to: at + forecast.bucketMs }));
  const filtered = query.clientId || query.topic;
  return html`
    <h1 tabindex="-1">Forecast</h1>
    <nav class="tabs" aria-label="How far">${Object.entries(RANGES).map(([name, { text }]) => html`<a href=${link({ range: name })} aria-current=${range === name ? "page" : undefined}>${text}</a>`)}</nav>
    ${filtered && html`<p>Only ${query.clientId && html`client <strong>${query.clientId}</strong>`}${query.clientId && query.topic && ", "}${query.topic && html`topic <strong>${query.topic}</strong>`}. <a href=${link({ client: "", topic: "" })}>All</a></p>`}
    <${View} of=${found} doing="counting">${forecast && html`
      <${AsOf} of=${found} live readUnits=${forecast.units}><span>, ${plural(forecast.lookedAt, "row")} looked at</span><//>
      <section class="card" aria-labelledby="bars-title"><h2 id="bars-title">Due, each ${lengthText(forecast.bucketMs)}</h2>
        <${Bars} title="Due schedules" points=${pointsOf(forecast)} series=${SERIES} bucketMs=${forecast.bucketMs} sentence=${html`<${ForecastSentence} forecast=${forecast} />`} onPick=${pick} pickText="show what is due then" /></section>
      <div class="columns">
        <section class="card" aria-labelledby="hot-title"><h2 id="hot-title">Busiest</h2>
          <${Counts} caption="Busiest times" label="From" rows=${[...forecast.buckets].filter((each) => each.count > 0).sort((a, b) => b.count - a.count).slice(0, HOT)} keyOf=${(row) => String(row.at)}
            cell=${(row) => html`<a href=${href("/upcoming", { client: query.clientId, topic: query.topic, from: row.at, to: row.at + forecast.bucketMs })}><${When} ms=${row.at} /></a>${!row.exact && html` <span class="muted">estimated</span>`}`} /></section>
        <section class="card" aria-labelledby="topics-title"><h2 id="topics-title">By topic</h2>
          <${Counts} caption="By topic" label="Topic" rows=${forecast.byTopic} others=${forecast.otherTopics} keyOf=${(row) => row.topic} cell=${(row) => html`<a href=${link({ topic: row.topic })}>${row.topic}</a>`} /></section>
        <section class="card" aria-labelledby="clients-title"><h2 id="clients-title">By client</h2>
          <${Counts} caption="By client" label="Client" rows=${forecast.byClient} others=${forecast.otherClients} keyOf=${(row) => row.clientId} cell=${(row) => html`<a href=${link({ client: row.clientId })}>${row.clientId}</a>`} /></section>
        <section class="card" aria-labelledby="shards-title"><h2 id="shards-title">By shard</h2>
          <${Counts} caption="By shard" label="Shard" rows=${forecast.byShard} keyOf=${(row) => String(row.shard)} cell=${(row) => row.shard} /></section>
      </div>`}<//>`;
}

const When = ({ ms }) => html`<span>${wallText(ms, useZone(), { millis: false })}</span>`;

function Counts({ caption, label, rows = [], others = 0, keyOf, cell }) {
  if (rows.length === 0) return html`<p class="muted">Nothing.</p>`;
  return html`<${Table} caption=${caption} rows=${rows} keyOf=${keyOf} columns=${[
    { id: "name", label, head: true, className: "key", cell },
    { id: "count", label: "Due", className: "number", cell: (row) => row.count.toLocaleString("en") },
  ]} />${others > 0 && html`<p class="muted">and ${others.toLocaleString("en")} in others</p>`}`;
}
