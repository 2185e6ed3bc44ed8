/** Finds a schedule by its key, or by a delivery. */
import { html } from "../lib.js";
import { ClientChips } from "../parts/clients.js";
import { AsOf, Nothing, View } from "../parts/states.js";
import { Table } from "../parts/table.js";
import { Plain, plural } from "../parts/text.js";
import { Time } from "../parts/time.js";
import { call } from "../state/api.js";
import { useResource } from "../state/poll.js";
import { href } from "../state/url.js";
import { columns, keyOf } from "./schedules.js";

/** @param {{params: URLSearchParams}} props */
export function SearchPage({ params }) {
  const q = params.get("q") ?? "";
  const found = useResource(q ? JSON.stringify(["search", q]) : null, async (signal) => {
    const answer = await call("GET", "/search", { query: { q }, signal });
    return { ...answer.data, units: answer.readUnits };
  });
  const at = q.indexOf("/");
  return html`
    <h1 tabindex="-1">Search</h1>
    ${q === "" && html`<${Nothing} title="What are you looking for?"><p>Type <code>client/key</code>, a key alone, or a <code>deliveryId</code>, into the field above; <kbd>/</kbd> goes there.</p><//>`}
    ${at > 0 && !found.data?.results.length && html`<p><a href=${href("/schedule", { client: q.slice(0, at), key: q.slice(at + 1) })}>Open <${Plain} text=${q} /></a></p>`}
    ${q !== "" && html`<${View} of=${found} doing="searching">
      ${found.data && html`
        <${AsOf} of=${found} readUnits=${found.data.units} />
        ${found.data.results.length > 0
          ? html`<${Table} caption=${`Schedules with the key ${q}`} columns=${columns({ client: true }).map((each) => ({ ...each, sorts: false }))} rows=${found.data.results} keyOf=${keyOf} />`
          : found.data.runs.length === 0 && html`<${Nothing} title=${found.data.complete ? html`Nothing is known under <${Plain} text=${q} />.` : html`<${Plain} text=${q} />: of which client?`}>
            <p>${found.data.complete ? "It was never accepted, or its retention has ended." : "It is none of those that were looked at."} Keys are compared exactly; a delivery is found by its id while its event is kept.</p>
            ${!found.data.complete && at < 0 && html`<${ClientChips} path="/schedule" params=${{ key: q }} />`}
            ${at > 0 && html`<p><a href=${href("/schedules", { client: q.slice(0, at) })}>All schedules of ${q.slice(0, at)}</a></p>`}<//>`}
        ${found.data.runs.map((each) => html`<p key=${each.runId}>A run of a job: <a href=${href("/job", { client: each.clientId, job: each.jobId, tab: "runs" })}><${Plain} text=${`${each.clientId}/${each.jobId}`} /></a>, <code><${Plain} text=${each.runId} /></code></p>`)}
        ${!found.data.complete && html`<p class="notice">Not every client was looked at: name one, as <code>client/key</code>.</p>`}
        <p class="muted">${plural(found.data.clientsLookedAt, "client")} looked at${found.data.clientsAsOf !== undefined && html`, of those that were seen up to <${Time} ms=${found.data.clientsAsOf} />. A key of a newer one is found as <code>client/key</code>`}.</p>`}
    <//>`}`;
}
