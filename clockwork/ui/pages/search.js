/** Finds a schedule by its key, or by a delivery. */
import { html } from "../lib.js";
import { ClientChips, useClients } from "../parts/clients.js";
import { AsOf, EmptyState, View } from "../parts/states.js";
import { Table } from "../parts/table.js";
import { SafeText, plural } from "../parts/text.js";
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
  const clients = useClients();
  const client = at > 0 ? q.slice(0, at) : clients.includes(q) ? q : null;
  const key = at > 0 ? q.slice(at + 1) : q;
  return html`
    <h1 tabindex="-1">Search</h1>
    ${q === "" && html`<${EmptyState} title="What are you looking for?"><p>Type <code>client/key</code>, a whole key, a client, or a <code>deliveryId</code>, into the field above; <kbd>/</kbd> goes there. Keys are compared exactly.</p><//>`}
    ${at > 0 && key && !found.data?.results.length && html`<p><a href=${href("/schedule", { client, key })}>Open <${SafeText} text=${q} /></a></p>`}
    ${client && html`<p>${at < 0 && html`<strong><${SafeText} text=${q} /></strong> is a client. `}<a href=${href("/schedules", { client })}>All schedules of <${SafeText} text=${client} /></a></p>`}
    ${q !== "" && html`<${View} of=${found} doing="searching">
      ${found.data && html`
        <${AsOf} of=${found} readUnits=${found.data.units} />
        ${found.data.results.length > 0
          ? html`<${Table} caption=${`Schedules with the key ${q}`} columns=${columns({ client: true }).map((each) => ({ ...each, sorts: false }))} rows=${found.data.results} keyOf=${keyOf} />`
          : found.data.runs.length === 0 && html`<${EmptyState} title=${found.data.complete || at > 0 ? html`No schedule with the key <${SafeText} text=${key} /> was found.` : html`<${SafeText} text=${q} />: of which client?`}>
            <p>${at > 0 ? html`<${SafeText} text=${client} /> has none` : "None of the clients that were looked at has one"}: it was never accepted, or its retention has ended. Keys are compared exactly, and as a whole. A delivery is found by its id while its event is kept.</p>
            ${!found.data.complete && at < 0 && html`<${ClientChips} path="/schedule" params=${{ key: q }} />`}<//>`}
        ${found.data.runs.map((each) => html`<p key=${each.runId}>A run of a job: <a href=${href("/job", { client: each.clientId, job: each.jobId, tab: "runs" })}><${SafeText} text=${`${each.clientId}/${each.jobId}`} /></a>, <code><${SafeText} text=${each.runId} /></code></p>`)}
        ${!found.data.complete && html`<p class="notice">Not every client was looked at: name one, as <code>client/key</code>.</p>`}
        <p class="muted">${plural(found.data.clientsLookedAt, "client")} looked at${found.data.clientsAsOf !== undefined && html`, of those that were seen up to <${Time} ms=${found.data.clientsAsOf} />. A key of a newer one is found as <code>client/key</code>`}.</p>`}
    <//>`}`;
}
