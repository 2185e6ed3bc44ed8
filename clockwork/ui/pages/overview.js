/** What asks for attention, worst first, and how the cluster does. */
import { html } from "../lib.js";
import { Bars } from "../parts/chart.js";
import { HeatMap, LATE_MS, laterThan, sumOf } from "../parts/minutes.js";
import { AsOf, View } from "../parts/states.js";
import { plural } from "../parts/text.js";
import { lengthText } from "../parts/time.js";
import { ApiError, TAKE_SHARED, call } from "../state/api.js";
import { now } from "../state/clock.js";
import { useResource } from "../state/poll.js";
import { useMe } from "../state/session.js";
import { go, href } from "../state/url.js";
import { BEHIND_MS } from "./cluster.js";
import { COST_BOUND_TEXT, ForecastSentence, SERIES, levelOf, pointsOf, readForecast } from "./forecast.js";

/** @import { Resource } from "../state/poll.js" */

const TILES_MS = 5_000;
const SHARDS_MS = 10_000;
const SLOW_MS = 30_000;
const LETTERS = 100;
/** Topics without records whose waiting rows are counted: each costs a forecast. */
const WAITING_COUNTED = 3;
const MINUTE_MS = 60_000;
const HOUR_MS = 3_600_000;
const STEP_MS = 900_000;
/** The latest minute that has ended began at most so long ago, and its figures take some seconds. */
const FRESH_MS = 150_000;
/** A process that is gone asks for attention for so long, in ms: after that it is one of those that were stopped. */
const GONE_MS = 600_000;
/** Worst first. */
const LEVELS = ["bad", "warn"];

/**
 * A part of the overview; `none`, and nothing else, where the reader may not see it, or the node does not have it.
 * @template T
 * @typedef {(T & {none?: undefined}) | ({none: string} & {[K in keyof T]?: undefined})} OrUnavailable
 */

/**
 * @template T
 * @param {(signal: AbortSignal) => Promise<T>} load
 * @returns {(signal: AbortSignal) => Promise<OrUnavailable<T>>}
 */
export const orUnavailable = (load) => async (signal) => {
  try {
    return /** @type {OrUnavailable<T>} */ (await load(signal));
  } catch (error) {
    if (error instanceof ApiError && [400, 403, 404, 501].includes(error.status)) return /** @type {OrUnavailable<T>} */ ({ none: error.problem.title });
    throw error;
  }
};
/** @type {<P extends "/admin/shards" | "/admin/nodes" | "/admin/pauses">(path: P) => (signal: AbortSignal) => Promise<OrUnavailable<Api.Answer<"GET", P> & {units: number | null}>>} */
const get = (path) => orUnavailable(async (signal) => {
  const answer = await call("GET", path, { signal });
  // any: what one of several paths answers cannot be spread.
  return { .../** @type {any} */ (answer.data), units: answer.readUnits };
});

export function OverviewPage() {
  const me = useMe();
  // What the reader may not see is not asked for.
  const admin = (/** @type {string} */ name) => (me?.rights.includes("admin") ? name : null);
  const looks = (/** @type {string} */ name) => (me?.rights.some((each) => ["read", "operate", "admin"].includes(each)) ? name : null);
  const reads = (/** @type {string} */ name) => (me?.rights.includes("read") ? name : null);
  const shards = useResource(admin("overview shards"), get("/admin/shards"), { everyMs: SHARDS_MS });
  const nodes = useResource(admin("overview nodes"), get("/admin/nodes"), { everyMs: SHARDS_MS });
  const pauses = useResource(looks("overview pauses"), get("/admin/pauses"), { everyMs: SHARDS_MS });
  const minutes = useResource(reads("overview minutes"), orUnavailable(async (signal) => (await call("GET", "/minutes", { query: { from: Math.floor((now() - HOUR_MS) / 60_000) * 60_000 }, signal })).data), { everyMs: TILES_MS });
  const day = useResource(reads("overview day"), orUnavailable(async (signal) => {
    const to = Math.ceil(now() / STEP_MS) * STEP_MS;
    return (await call("GET", "/minutes", { query: { from: to - 24 * HOUR_MS, to, stepMs: STEP_MS }, signal })).data;
  }), { everyMs: 2 * SLOW_MS });
  // The recorded one, also just after a change: to count the hour anew for a glance would cost as much as the page Forecast.
  const forecast = useResource(reads("overview forecast"), orUnavailable((signal) => readForecast("", {}, signal, TAKE_SHARED)), { everyMs: SLOW_MS });
  const letters = useResource(looks("overview letters"), orUnavailable(async (signal) => {
    const { data } = await call("GET", "/admin/dead-letters", { query: { limit: LETTERS }, signal });
    return { open: data.deadLetters.filter((each) => each.open).length, more: data.cursor !== null };
  }), { everyMs: 2 * SLOW_MS });

  const rows = shards.data?.shards;
  const without = rows?.filter((row) => row.owner === undefined).length ?? 0;
  // They are of the latest minute that every process has told of: a wait is here two minutes after its begin at most.
  const waiting = minutes.data?.waiting ?? [];
  const overdue = useOverdue(waiting.map((each) => each.topic));
  const lagging = (rows ?? []).filter((row) => row.lagMs > BEHIND_MS);
  const byPause = lagging.filter((row) => row.oldestPaused);
  const byTopic = lagging.filter((row) => !row.oldestPaused && waiting.some((each) => each.topic === row.oldestTopic));
  const behind = lagging.filter((row) => !byPause.includes(row) && !byTopic.includes(row));
  const lag = rows ? Math.max(0, ...rows.map((row) => row.lagMs)) : null;
  const paused = pauses.data?.clients ? pauses.data.clients.length + pauses.data.topics.length : null;
  const open = letters.data?.open ?? null;
  const more = letters.data?.more ?? false;
  // Only minutes with something are told, each some seconds after its end: an older one is none of now.
  const last = minutes.data?.minutes?.findLast((each) => each.at >= (minutes.data?.asOf ?? 0) - FRESH_MS);
  const hour = minutes.data?.minutes ?? [];
  const delivered = sumOf(hour, "delivered");
  const late = hour.reduce((sum, each) => sum + laterThan(each.lateness, minutes.data?.latenessBoundsMs ?? [], LATE_MS), 0);
  const lateShare = delivered > 0 ? late / delivered : 0;
  const gone = nodes.data?.nodes?.filter((each) => each.gone && now() - each.seenAt < GONE_MS).length ?? 0;
  const there = nodes.data?.nodes?.filter((each) => !each.gone).length ?? null;
  const hourDue = forecast.data?.buckets?.reduce((sum, each) => sum + each.count, 0) ?? null;
  // A shard whose first row is paused is behind because of that: it is no defect, and others are no better for it.
  const lagLevel = behind.length > 0 || byTopic.length > 0 ? "bad" : byPause.length > 0 ? "warn" : "";
  const unread = Object.entries({ Shards: shards, Processes: nodes, Pauses: pauses, Rates: minutes, "The forecast": forecast, "Dead letters": letters })
    .filter(([, of]) => of.error && of.error.status !== 401).map(([name, of]) => ["bad", `${name} could not be read: ${of.error?.problem.title}`, null]);
  const attention = /** @type {[string, string, string | null][]} */ ([
    ...unread,
    without > 0 && ["bad", `${plural(without, "shard has", "shards have")} no owner: what is due there waits`, "/cluster"],
    ...waiting.map(({ topic, reason, since }) => ["bad", `The topic ${topic} takes no records, for ${lengthText(Math.max(0, now() - since))}: ${reason}${overdue.get(topic) ? `; ${plural(overdue.get(topic) ?? 0, "due waits", "due wait")} for it` : ""}`, "/destinations"]),
    // Each row there has its reason; Cluster has none.
    behind.length > 0 && ["bad", `What is due first in ${plural(behind.length, "shard")} waits for up to ${lagText(behind)}: ask why`, "/upcoming"],
    byPause.length > 0 && ["warn", `A pause holds back what is due first in ${plural(byPause.length, "shard")}, for ${lagText(byPause)}`, "/destinations"],
    ...(nodes.data?.nodes ?? []).filter((each) => !each.gone && (each.kafka || each.store)).map((each) => ["bad", `${each.node}: ${each.kafka ? `Kafka: ${each.kafka}` : `store: ${each.store}`}`, "/cluster"]),
    open !== null && open > 0 && ["warn", `${open}${more ? " or more" : ""} dead ${open === 1 && !more ? "letter is" : "letters are"} open`, "/dead-letters"],
    open === 0 && more && ["warn", `None of the first ${LETTERS} dead letters is open; there are more, which were not looked at`, "/dead-letters"],
    paused !== null && paused > 0 && ["warn", `${plural(paused, "client or topic is", "clients or topics are")} paused`, "/destinations"],
    lateShare > 0.01 && ["warn", `${(lateShare * 100).toFixed(1)} % of the last hour's deliveries were more than ${lengthText(LATE_MS)} late`, "/activity?kind=delivered"],
    gone > 0 && ["warn", `${plural(gone, "process was", "processes were")} last seen more than 30 s ago`, "/cluster"],
    nodes.data?.differences && nodes.data.differences.length > 0 && ["warn", `${plural(nodes.data.differences.length, "setting differs", "settings differ")} between processes`, "/cluster"],
  ].filter(Boolean)).sort((a, b) => LEVELS.indexOf(a[0]) - LEVELS.indexOf(b[0]));
  const units = [shards, forecast].reduce((sum, each) => sum + (each.data?.units ?? 0), 0);
  return html`
    <h1 tabindex="-1">Overview</h1>
    <${AsOf} of=${shards.key === null ? minutes : shards} live readUnits=${units || null} />
    <section class="card" aria-labelledby="attention-title"><h2 id="attention-title">What asks for attention</h2>
      ${attention.length === 0
        ? html`<p>${shards.data === null && shards.key !== null ? "…" : rows || me === null ? html`<span class="status status-good"><span aria-hidden="true">● </span>Nothing.</span>` : "Nothing that you may see."}</p>`
        : html`<ul class="attention">${attention.map(([level, text, to]) => html`<li key=${text}><span class=${`status status-${level}`} aria-hidden="true">${level === "bad" ? "▲" : "◆"} </span>${to === null ? text : html`<a href=${linkTo(to)}>${text}</a>`}</li>`)}</ul>`}</section>
    <div class="tiles">
      <${Tile} of=${minutes} to="/activity?kind=delivered" name="delivered a minute" value=${minutes.data?.minutes ? (last?.delivered ?? 0).toLocaleString("en") : null} />
      <${Tile} of=${minutes} to="/activity?kind=created" name="created a minute" value=${minutes.data?.minutes ? (last?.created ?? 0).toLocaleString("en") : null} />
      <${Tile} of=${minutes} to="/activity?kind=delivered" name=${`over ${lengthText(LATE_MS)} late, last hour`} level=${lateShare > 0.01 ? "warn" : ""} value=${minutes.data?.minutes ? `${(lateShare * 100).toFixed(lateShare > 0 && lateShare < 0.1 ? 2 : 0)} %` : null} />
      <${Tile} of=${forecast} to="/upcoming" name="overdue" level=${lagLevel} value=${forecast.data?.overdue?.toLocaleString("en") ?? null} />
      <${Tile} of=${shards} to="/cluster" name="the oldest due waits" level=${lagLevel} value=${lag === null ? null : lag === 0 ? "none" : lengthText(lag)} />
      <${Tile} of=${forecast} to="/forecast" name="due within the next hour" value=${hourDue?.toLocaleString("en") ?? null} />
      <${Tile} of=${letters} to="/dead-letters" name=${more ? `open dead letters, ${LETTERS} looked at` : "open dead letters"} level=${(open ?? 0) > 0 || more ? "warn" : ""} value=${open === null ? null : more ? `${open} or more` : open} />
      <${Tile} of=${pauses} to="/destinations" name="paused clients and topics" level=${(paused ?? 0) > 0 ? "warn" : ""} value=${paused} />
      <${Tile} of=${shards} to="/cluster" name="shards without owner" level=${without > 0 ? "bad" : ""} value=${rows ? `${without} of ${rows.length}` : null} />
      <${Tile} of=${nodes} to="/cluster" name="processes" level=${gone > 0 ? "warn" : ""} value=${there} />
    </div>
    ${forecast.key !== null && forecast.data?.none === undefined && html`<section class="card" aria-labelledby="hour-title"><h2 id="hour-title">The next hour</h2>
      <${View} of=${forecast} doing="counting" bound=${COST_BOUND_TEXT}>${forecast.data && html`<${Bars} title="Due within the next hour" points=${pointsOf(forecast.data)} series=${SERIES} bucketMs=${forecast.data.bucketMs} level=${levelOf(forecast.data)} sentence=${html`<${ForecastSentence} forecast=${forecast.data} />`}
        onPick=${(at) => go(href("/upcoming", { from: at, to: at + (forecast.data?.bucketMs ?? 0) }))} pickText="show what is due then" />`}<//></section>`}
    ${day.key !== null && !day.data?.none && html`<section class="card" aria-labelledby="late-title"><h2 id="late-title">Lateness, last 24 hours</h2>
      <${View} of=${day}>${day.data && html`<${HeatMap} minutes=${day.data.minutes} boundsMs=${day.data.latenessBoundsMs} from=${day.data.from} to=${day.data.to} stepMs=${day.data.stepMs} />`}<//></section>`}`;
}

/** A page and its filters, such as `/activity?kind=delivered`, as a link. @param {string} to */
function linkTo(to) {
  const [path, filters] = to.split("?");
  return href(path, Object.fromEntries(new URLSearchParams(filters)));
}

/**
 * How many are due for each of some topics, as far as that is known.
 * @param {string[]} topics
 * @returns {Map<string, number>}
 */
function useOverdue(topics) {
  const asked = topics.slice(0, WAITING_COUNTED);
  const found = useResource(asked.length > 0 ? JSON.stringify(["overview overdue", asked]) : null, orUnavailable(async (signal) => {
    const counts = /** @type {[string, number][]} */ ([]);
    for (const topic of asked) {
      // The shortest window: what is due now is all that is wanted, and each row costs.
      const { data } = await call("GET", "/forecast", { query: { topic, to: Math.ceil(now() / MINUTE_MS + 1) * MINUTE_MS, bucketMs: MINUTE_MS }, signal });
      if (data.overdue !== undefined) counts.push([topic, data.overdue]);
    }
    return { counts };
  }), { everyMs: 2 * SLOW_MS });
  return new Map(found.data?.counts ?? []);
}

/** @param {Api.ShardDocument[]} shards */
const lagText = (shards) => lengthText(Math.max(...shards.map((row) => row.lagMs)));

/**
 * One figure, and where it comes from.
 * @param {{of: Resource, to: string, name: string, value: string | number | null, level?: string}} props
 */
export function Tile({ of, to, name, value, level = "" }) {
  const none = of.data?.none;
  return html`<a class=${`tile ${level}`} href=${linkTo(to)}><strong>${value ?? (none || of.error || of.data || of.key === null ? "–" : "…")}</strong><span>${name}${none && html`<br />${none}`}${of.error && html`<br />${of.error.problem.title}`}</span></a>`;
}
