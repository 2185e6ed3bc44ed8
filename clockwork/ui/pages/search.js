/** Finds a schedule by its key. */
import { html } from "../lib.js";
import { AsOf, Nothing, View } from "../parts/states.js";
import { Table } from "../parts/table.js";
import { Plain, plural } from "../parts/text.js";
import { call } from "../state/api.js";
import { useResource } from "../state/poll.js";
import { href } from "../state/url.js";
import { columns, keyOf } from "./schedules.js";

export function SearchPage({ params }) {
  const q = params.get("q") ?? "";
  const found = useResource(q ? JSON.stringify(["search", q]) : null, async (signal) => {
    const answer = await call("GET", "/search", { query: { q }, signal });
    return { ...answer.data, units: answer.readUnits };
  });
  const at = q.indexOf("/");
  return html`
    <h1 tabindex="-1">Search</h1>
    ${q === "" && html`<${Nothing} title="What are you looking for?"><p>Type <code>client/key</code>, or a key alone, into the field above; <kbd>/</kbd> goes there.</p><//>`}
    ${at > 0 && html`<p><a href=${href("/schedule", { client: q.slice(0, at), key: q.slice(at + 1) })}>Open <${Plain} text=${q} /></a></p>`}
    ${q !== "" && html`<${View} of=${found} doing="searching">
      ${found.data && html`
        <${AsOf} of=${found} readUnits=${found.data.units} />
        ${found.data.results.length > 0
          ? html`<${Table} caption=${`Schedules with the key ${q}`} columns=${columns({ client: true }).map((each) => ({ ...each, sorts: false }))} rows=${found.data.results} keyOf=${keyOf} />`
          : html`<${Nothing} title=${html`Nothing is known under <${Plain} text=${q} />.`}>
            <p>It was never accepted, or its retention has ended. Keys are compared exactly.</p>
            ${at > 0 && html`<p><a href=${href("/schedules", { client: q.slice(0, at) })}>All schedules of ${q.slice(0, at)}</a></p>`}<//>`}
        ${found.data.complete === false && html`<p class="notice">${found.data.hint ?? "Not every client was looked at: name one, as client/key."}</p>`}
        <p class="muted">${plural(found.data.clientsLookedAt ?? 0, "client")} looked at.</p>`}
    <//>`}`;
}
