/**
 * One action on many: asked for with its exact scope and number, sent in batches one after the other, answered item by item.
 *
 * The browser walks and sends; there is no such operation on the server, so closing the tab stops it, and nothing is lost by
 * that: each item was carried out, or not.
 */
import { html, useEffect, useMemo, useRef, useState } from "../lib.js";
import { ApiError } from "../state/api.js";
import { now } from "../state/clock.js";
import { jsonText } from "../state/exact.js";
import { Dialog } from "./dialog.js";
import { ActionButton, REASON_CHARS_MAX, TextField, announce } from "./form.js";
import { Download } from "./json.js";
import { SafeText, plural } from "./text.js";

/** @import { Hole } from "../lib.js" */

export const BATCH = 100;
/** From this many on, the number is to be typed. */
export const TYPED_FROM = 100;
const CLOSE_MS = 5_000;
const TRIES = 5;

/**
 * @typedef {{clientId: string, scheduleKey: string, deliveryId?: string, scheduleTime?: number, status?: string, version?: number,
 *            jobId?: string, deadLetterTopic?: string, partition?: number, offset?: number | bigint}} Item
 */

/** @typedef {{status: number, type?: string, title?: string, detail?: string, reason?: string}} Result of one item */

/**
 * @typedef {object} Action
 * @property {string} verb such as "Cancel"
 * @property {string} [noun] by default "schedule"
 * @property {string} did such as "cancelled"
 * @property {string} warning what cannot be undone
 * @property {boolean} [mild] nothing is lost by it
 * @property {(batch: Item[], reason?: string) => Promise<Result[]>} send answers one result for each item, in order
 * @property {(item: Item) => string} nameOf
 */

/**
 * The answer of an item in one or two words. Status 0 is no answer at all: what became of the item is not known.
 * @param {Pick<Action, "did">} action @param {Result} result
 */
export function answerText(action, result) {
  if (result.status >= 200 && result.status < 300) return action.did;
  return result.reason ?? (String(result.type ?? "").split(":").at(-1) || result.title || `HTTP ${result.status}`);
}

/**
 * A list whose rows are all meant, as far as they match.
 * @template [R=any] its rows
 * @typedef {object} WholeList
 * @property {(cursor: string | null, signal: AbortSignal) => Promise<{rows: R[], cursor: string | null}>} read one page
 * @property {(row: R) => string} keyOf
 * @property {(row: R) => boolean} [matches] what the filters of `read` do not say; by default each row matches
 * @property {(row: R) => boolean} [takes] whether the action can be done with a row that matches; by default with each
 * @property {(count: number) => string} [leftOutText] what those are that match and are not taken
 */

/** @typedef {{items: Item[], leftOut: number, lookedAt: number}} Collected */

/**
 * @typedef {{action: Action, items: Item[] | null, list?: WholeList, scope: Hole}} BulkRequest
 *   `items`: what was selected; or null, and all of `list` that match are meant
 */

/**
 * Calls again what the service puts off, or the network lost; each try is the same request. Raises: what `request` raises
 * at last, or once `signal` is aborted.
 * @template T
 * @param {() => Promise<T>} request @param {AbortSignal} signal
 */
async function patiently(request, signal) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await request();
    } catch (wrong) {
      if (!(wrong instanceof ApiError) || ![0, 429, 503].includes(wrong.status) || tries === TRIES || signal.aborted) throw wrong;
      await new Promise((resume) => {
        setTimeout(resume, (wrong.retryAfterS ?? tries) * 1_000);
        signal.addEventListener("abort", resume, { once: true });
      });
      if (signal.aborted) throw wrong;
    }
  }
}

/**
 * Reads a list to its end: the number of what matches is never guessed. A row that moves while the list is read may come
 * twice; it is taken once, as it was seen last.
 * @param {WholeList} list @param {AbortSignal} signal @param {(sofar: Collected) => void} onPage
 * @returns {Promise<Collected>}
 */
async function collect(list, signal, onPage) {
  const items = new Map();
  const leftOut = new Set();
  let lookedAt = 0;
  /** @type {string | null} */
  let cursor = null;
  for (;;) {
    const page = /** @type {{rows: any[], cursor: string | null}} */ (await patiently(() => list.read(cursor, signal), signal));
    lookedAt += page.rows.length;
    for (const row of page.rows.filter((each) => list.matches?.(each) ?? true)) {
      if (list.takes?.(row) ?? true) items.set(list.keyOf(row), row);
      else leftOut.add(list.keyOf(row));
    }
    const sofar = { items: [...items.values()], leftOut: leftOut.size, lookedAt };
    onPage(sofar);
    if (page.cursor === null) return sofar;
    cursor = page.cursor;
  }
}

/**
 * @typedef {object} BulkAction the two buttons of an action
 * @property {string} text its button for the selected
 * @property {string} allText its button for all that match
 * @property {string | null} offReason why the button for the selected is off; null: it is on
 * @property {string | null} offReasonAll why the button for all that match is off; null: it is on
 * @property {(all: boolean) => void} onClick
 */

/**
 * The actions on the selected rows or, while none is selected, on all that match.
 * @param {{selected: number, actions: BulkAction[], onNone: () => void}} props
 */
export function ActionBar({ selected, actions, onNone }) {
  return html`<div class=${`action-bar ${selected ? "on" : ""}`} role="group" aria-label="Actions on the selected">
    ${selected === 0
      ? html`<span class="muted">Select rows, or act on all that match:</span>
        ${actions.map(({ allText, offReasonAll, onClick }, number) => html`<${ActionButton} className="small" offReason=${offReasonAll} data-actions=${number === 0 || undefined} onClick=${() => onClick(true)}>${allText}<//>`)}`
      : html`<strong aria-live="polite">${selected} selected</strong>
        ${actions.map(({ text, offReason, onClick }, number) => html`<${ActionButton} offReason=${offReason} data-actions=${number === 0 || undefined} onClick=${() => onClick(false)}>${text}<//>`)}
        <button type="button" class="quiet" onClick=${onNone}>Select none</button>`}
  </div>`;
}

/** @param {BulkRequest & {onClose: (done: boolean) => void}} props */
export function BulkDialog({ action, items, list, scope, onClose }) {
  const [collected, setCollected] = useState(/** @type {Collected} */ ({ items: items ?? [], leftOut: 0, lookedAt: 0 }));
  const [phase, setPhase] = useState(items ? "ask" : "count");
  const [error, setError] = useState(/** @type {ApiError | null} */ (null));
  const [results, setResults] = useState(/** @type {{item: Item, result: Result}[]} */ ([]));
  const [typed, setTyped] = useState("");
  const [reason, setReason] = useState("");
  const [sendingPaused, setSendingPaused] = useState(false);
  const stop = useRef(new AbortController());
  const state = useRef({ sendingPaused: false, resume: /** @type {(value?: unknown) => void} */ (() => {}) });
  const { signal } = stop.current;
  const found = collected.items;
  const end = () => {
    stop.current.abort();
    state.current.resume();
  };
  useEffect(() => end, []);

  useEffect(() => {
    if (!list) return;
    (async () => {
      try {
        await collect(list, signal, setCollected);
        setPhase("ask");
      } catch (wrong) {
        if (signal.aborted) return;
        if (!(wrong instanceof ApiError)) throw wrong;
        setError(wrong);
        setPhase("failed");
      }
    })();
  }, []);

  const run = async () => {
    setPhase("run");
    const all = [];
    for (let at = 0; at < found.length && !signal.aborted; at += BATCH) {
      if (state.current.sendingPaused) await new Promise((resume) => (state.current.resume = resume));
      if (signal.aborted) break;
      const batch = found.slice(at, at + BATCH);
      all.push(...(await sent(batch)).map((result, number) => ({ item: batch[number], result })));
      setResults([...all]);
    }
    setPhase("done");
    announce(`${plural(all.length, action.noun ?? "schedule")} answered`);
  };

  /** @type {(batch: Item[]) => Promise<Result[]>} */
  const sent = async (batch) => {
    try {
      return await patiently(() => action.send(batch, reason.trim() || undefined), signal);
    } catch (wrong) {
      if (!(wrong instanceof ApiError)) throw wrong;
      // The login has ended: another batch would be refused, too, or be sent in the name of the one who logs in next.
      if (wrong.status === 401) stop.current.abort();
      return batch.map(() => ({ ...wrong.problem, status: wrong.status }));
    }
  };

  const noun = action.noun ?? "schedule";
  const count = found.length;
  const close = found.filter((each) => each.status === "pending" && (each.scheduleTime ?? Infinity) - now() < CLOSE_MS).length;
  const wantsTyping = count >= TYPED_FROM || (document.documentElement.dataset.banner && count > 1);
  const groups = useMemo(() => {
    const found = new Map();
    for (const each of results) {
      const text = answerText(action, each.result);
      const group = found.get(text) ?? { count: 0, first: each };
      group.count += 1;
      found.set(text, group);
    }
    return found;
  }, [results]);
  const leftOut = collected.leftOut > 0 && html`<p>${list?.leftOutText?.(collected.leftOut)}</p>`;
  const title = phase === "count" ? `${action.verb} all that match?` : phase === "done" ? `${action.verb}: what was done` : `${action.verb} ${plural(count, noun)}?`;
  return html`<${Dialog} title=${title} closes=${phase !== "run"} onClose=${() => onClose(results.length > 0)}>
    ${phase === "count" && html`<p role="status">Counting what matches: ${plural(count, noun)} so far, ${collected.lookedAt.toLocaleString("en")} looked at…</p>
      <div class="buttons"><button type="button" data-focus onClick=${() => onClose(false)}>Stop</button></div>`}
    ${phase === "failed" && html`<div class="notice bad" role="alert"><p>${error?.problem.title}: ${error?.message}</p><p>Nothing was done.</p></div>
      <div class="buttons"><button type="button" data-focus onClick=${() => onClose(false)}>Close</button></div>`}
    ${phase === "ask" && count === 0 && html`<p>${leftOut ? "Nothing that matches can be acted on here." : "Nothing matches any more."}</p>${leftOut}<div class="buttons"><button type="button" data-focus onClick=${() => onClose(false)}>Close</button></div>`}
    ${phase === "ask" && count > 0 && html`
      <dl class="facts"><dt>What</dt><dd>${scope}</dd><dt>How many</dt><dd><strong>${count.toLocaleString("en")}</strong></dd></dl>
      <ul class="first">${found.slice(0, 5).map((each) => html`<li><code><${SafeText} text=${action.nameOf(each)} /></code></li>`)}${count > 5 && html`<li>and ${(count - 5).toLocaleString("en")} more</li>`}</ul>
      ${leftOut}<p>${action.warning}</p>
      ${close > 0 && html`<p><span aria-hidden="true">▲ </span>${plural(close, "is", "are")} due within 5 s: the answer may be <em>in flight</em>.</p>`}
      <${TextField} id="reason" label="Reason, for people" value=${reason} onInput=${setReason} maxlength=${REASON_CHARS_MAX} />
      ${wantsTyping && html`<label>Type the number to go on <input inputmode="numeric" autocomplete="off" value=${typed} onInput=${(event) => setTyped(event.currentTarget.value)} /></label>`}
      <div class="buttons">
        <button type="button" data-focus onClick=${() => onClose(false)}>Do nothing</button>
        <${ActionButton} className=${action.mild ? "primary" : "danger"} offReason=${wantsTyping && typed.replace(/[\s,.]/g, "") !== String(count) ? "type the number first" : null} onClick=${run}>${action.verb} ${plural(count, noun)}<//>
      </div>`}
    ${(phase === "run" || phase === "done") && html`
      <p role=${phase === "done" ? "status" : undefined}>${results.length.toLocaleString("en")} of ${count.toLocaleString("en")} answered${phase === "done" && results.length < count ? "; the others were not sent" : ""}.</p>
      <progress max=${count} value=${results.length} aria-label="Progress"></progress>
      ${groups.size > 0 && html`<div class="table-box compact"><table><thead><tr><th scope="col">Answer</th><th scope="col" class="number">Number</th><th scope="col">Such as</th></tr></thead>
        <tbody>${[...groups].map(([text, { count: number, first: { item, result } }]) => html`<tr key=${text}><th scope="row">${text.replaceAll("_", " ").replaceAll("-", " ")}</th><td class="number">${number.toLocaleString("en")}</td>
          <td><code><${SafeText} text=${action.nameOf(item)} /></code>${result.detail && html`<br /><span class="muted"><${SafeText} text=${result.detail} /></span>`}</td></tr>`)}</tbody></table></div>`}
      ${phase === "run" && html`<p class="muted">Closing this tab stops it. What was answered stays done.</p>`}
      <div class="buttons">
        ${phase === "run" && html`<button type="button" onClick=${() => {
          state.current.sendingPaused = !sendingPaused;
          setSendingPaused(!sendingPaused);
          if (sendingPaused) state.current.resume();
        }}>${sendingPaused ? "Go on" : "Pause"}</button>
        <button type="button" onClick=${end}>Stop</button>`}
        ${phase === "done" && html`<${Download} label="Download the answers" name="answers.jsonl" text=${results.map(({ item, result }) => jsonText({ item, result })).join("\n")} />
        <button type="button" data-focus onClick=${() => onClose(true)}>Close</button>`}
      </div>`}
  <//>`;
}
