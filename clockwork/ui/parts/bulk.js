/**
 * One action on many: asked for with its exact scope and number, sent in batches one after the other, answered item by item.
 *
 * The browser walks and sends; there is no such operation on the server, so closing the tab stops it, and nothing is lost by
 * that: each item was carried out, or not.
 */
import { html, useEffect, useMemo, useRef, useState } from "../lib.js";
import { ApiError } from "../state/api.js";
import { now } from "../state/clock.js";
import { Dialog } from "./dialog.js";
import { Act, REASON_CHARS_MAX, TextField, say } from "./form.js";
import { Download } from "./json.js";
import { Plain, plural } from "./text.js";

/** @import { Hole } from "../lib.js" */

export const BATCH = 100;
/** From this many on, the number is to be typed. */
export const TYPED_FROM = 100;
const CLOSE_MS = 5_000;
const TRIES = 5;

/**
 * @typedef {{clientId: string, scheduleKey: string, deliveryId?: string, scheduleTime?: number, status?: string, version?: number,
 *            jobId?: string, deadLetterTopic?: string, partition?: number, offset?: number}} Item
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
 * @typedef {{action: Action, items: Item[] | null, walk?: (signal: AbortSignal) => AsyncGenerator<Item[]>, scope: Hole}} Asked
 *   `items`: what was selected; or null, and `walk` lists all that match
 */

/** @param {Asked & {onClose: (done: boolean) => void}} props */
export function Bulk({ action, items, walk, scope, onClose }) {
  const [found, setFound] = useState(items ?? []);
  const [counted, setCounted] = useState(0);
  const [phase, setPhase] = useState(items ? "ask" : "count");
  const [error, setError] = useState(/** @type {ApiError | null} */ (null));
  const [results, setResults] = useState(/** @type {{item: Item, result: Result}[]} */ ([]));
  const [typed, setTyped] = useState("");
  const [reason, setReason] = useState("");
  const [held, setHeld] = useState(false);
  const abort = useRef(new AbortController());
  const state = useRef({ held: false, stopped: false, resume: /** @type {(value?: unknown) => void} */ (() => {}) });
  useEffect(() => () => {
    state.current.stopped = true;
    state.current.resume();
    abort.current.abort();
  }, []);

  useEffect(() => {
    if (phase !== "count" || !walk) return;
    (async () => {
      const all = [];
      try {
        for await (const page of walk(abort.current.signal)) {
          all.push(...page);
          setCounted(all.length);
        }
        setFound(all);
        setPhase("ask");
      } catch (wrong) {
        if (wrong instanceof DOMException && wrong.name === "AbortError") return;
        if (!(wrong instanceof ApiError)) throw wrong;
        setError(wrong);
        setPhase("failed");
      }
    })();
  }, []);

  const run = async () => {
    setPhase("run");
    const all = [];
    for (let at = 0; at < found.length && !state.current.stopped; at += BATCH) {
      if (state.current.held) await new Promise((resume) => (state.current.resume = resume));
      if (state.current.stopped) break;
      const batch = found.slice(at, at + BATCH);
      all.push(...(await sent(batch)).map((result, number) => ({ item: batch[number], result })));
      setResults([...all]);
    }
    setPhase("done");
    say(`${plural(all.length, action.noun ?? "schedule")} answered`);
  };

  /**
   * A batch is sent again as it is where the service says so: each is the same request.
   * @type {(batch: Item[]) => Promise<Result[]>}
   */
  const sent = async (batch) => {
    for (let tries = 1; ; tries += 1) {
      try {
        return await action.send(batch, reason.trim() || undefined);
      } catch (wrong) {
        if (!(wrong instanceof ApiError)) throw wrong;
        const again = (wrong.status === 429 || wrong.status === 503 || wrong.status === 0) && tries < TRIES;
        if (!again || state.current.stopped) return batch.map(() => ({ ...wrong.problem, status: wrong.status }));
        await new Promise((resume) => setTimeout(resume, (wrong.retryAfterS ?? tries) * 1_000));
      }
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
  const title = phase === "count" ? `${action.verb} all that match?` : phase === "done" ? `${action.verb}: what was done` : `${action.verb} ${plural(count, noun)}?`;
  return html`<${Dialog} title=${title} closes=${phase !== "run"} onClose=${() => onClose(results.length > 0)}>
    ${phase === "count" && html`<p role="status">Counting what matches: ${plural(counted, noun)} so far…</p>
      <div class="buttons"><button type="button" data-focus onClick=${() => onClose(false)}>Stop</button></div>`}
    ${phase === "failed" && html`<div class="notice bad" role="alert"><p>${error?.problem.title}: ${error?.message}</p><p>Nothing was done.</p></div>
      <div class="buttons"><button type="button" data-focus onClick=${() => onClose(false)}>Close</button></div>`}
    ${phase === "ask" && count === 0 && html`<p>Nothing matches any more.</p><div class="buttons"><button type="button" data-focus onClick=${() => onClose(false)}>Close</button></div>`}
    ${phase === "ask" && count > 0 && html`
      <dl class="facts"><dt>What</dt><dd>${scope}</dd><dt>How many</dt><dd><strong>${count.toLocaleString("en")}</strong></dd></dl>
      <ul class="first">${found.slice(0, 5).map((each) => html`<li><code><${Plain} text=${action.nameOf(each)} /></code></li>`)}${count > 5 && html`<li>and ${(count - 5).toLocaleString("en")} more</li>`}</ul>
      <p>${action.warning}</p>
      ${close > 0 && html`<p><span aria-hidden="true">▲ </span>${plural(close, "is", "are")} due within 5 s: the answer may be <em>in flight</em>.</p>`}
      <${TextField} id="reason" label="Reason, for people" value=${reason} onInput=${setReason} maxlength=${REASON_CHARS_MAX} />
      ${wantsTyping && html`<label>Type the number to go on <input inputmode="numeric" autocomplete="off" value=${typed} onInput=${(event) => setTyped(event.currentTarget.value)} /></label>`}
      <div class="buttons">
        <button type="button" data-focus onClick=${() => onClose(false)}>Do nothing</button>
        <${Act} className=${action.mild ? "primary" : "danger"} why=${wantsTyping && typed.replace(/[\s,.]/g, "") !== String(count) ? "type the number first" : null} onClick=${run}>${action.verb} ${plural(count, noun)}<//>
      </div>`}
    ${(phase === "run" || phase === "done") && html`
      <p role=${phase === "done" ? "status" : undefined}>${results.length.toLocaleString("en")} of ${count.toLocaleString("en")} answered${phase === "done" && results.length < count ? "; the others were not sent" : ""}.</p>
      <progress max=${count} value=${results.length} aria-label="Progress"></progress>
      ${groups.size > 0 && html`<div class="table-box compact"><table><thead><tr><th scope="col">Answer</th><th scope="col" class="number">Number</th><th scope="col">Such as</th></tr></thead>
        <tbody>${[...groups].map(([text, { count: number, first: { item, result } }]) => html`<tr key=${text}><th scope="row">${text.replaceAll("_", " ").replaceAll("-", " ")}</th><td class="number">${number.toLocaleString("en")}</td>
          <td><code><${Plain} text=${action.nameOf(item)} /></code>${result.detail && html`<br /><span class="muted"><${Plain} text=${result.detail} /></span>`}</td></tr>`)}</tbody></table></div>`}
      ${phase === "run" && html`<p class="muted">Closing this tab stops it. What was answered stays done.</p>`}
      <div class="buttons">
        ${phase === "run" && html`<button type="button" onClick=${() => {
          state.current.held = !held;
          setHeld(!held);
          if (held) state.current.resume();
        }}>${held ? "Go on" : "Pause"}</button>
        <button type="button" onClick=${() => {
          state.current.stopped = true;
          state.current.resume();
        }}>Stop</button>`}
        ${phase === "done" && html`<${Download} label="Download the answers" name="answers.jsonl" text=${results.map(({ item, result }) => JSON.stringify({ item, result })).join("\n")} />
        <button type="button" data-focus onClick=${() => onClose(true)}>Close</button>`}
      </div>`}
  <//>`;
}
