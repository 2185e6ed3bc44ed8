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
import { Act, say } from "./form.js";
import { Download } from "./json.js";
import { Plain, plural } from "./text.js";

export const BATCH = 100;
/** From this many on, the number is to be typed. */
export const TYPED_FROM = 100;
const CLOSE_MS = 5_000;
const TRIES = 5;

/**
 * @typedef {object} Action
 * @property {string} verb such as "Cancel"
 * @property {string} [noun] by default "schedule"
 * @property {string} did such as "cancelled"
 * @property {string} warning what cannot be undone
 * @property {(batch: any[]) => Promise<any[]>} send answers one result for each item, in order
 * @property {(item: any) => string} nameOf
 * @property {(result: any) => string} [answerOf]
 */

/** The answer of an item in one or two words. */
function answerText(action, result) {
  if (result.status < 300) return action.answerOf?.(result) ?? action.did;
  return result.reason ?? String(result.type ?? "").split(":").at(-1) ?? `HTTP ${result.status}`;
}

/**
 * @param {{action: Action, items: any[] | null, walk?: (signal: AbortSignal) => AsyncGenerator<any[]>, scope: any,
 *          onClose: (done: boolean) => void}} props
 *   `items`: what was selected; or null, and `walk` lists all that match
 */
export function Bulk({ action, items, walk, scope, onClose }) {
  const [found, setFound] = useState(items ?? []);
  const [counted, setCounted] = useState(0);
  const [phase, setPhase] = useState(items ? "ask" : "count");
  const [error, setError] = useState(/** @type {ApiError | null} */ (null));
  const [results, setResults] = useState(/** @type {any[]} */ ([]));
  const [typed, setTyped] = useState("");
  const [held, setHeld] = useState(false);
  const abort = useRef(new AbortController());
  const state = useRef({ held: false, stopped: false, resume: () => {} });
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

  /** A batch is sent again as it is where the service says so: each is the same request. */
  const sent = async (batch) => {
    for (let tries = 1; ; tries += 1) {
      try {
        return await action.send(batch);
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
  const close = found.filter((each) => each.scheduleTime !== undefined && each.scheduleTime - now() < CLOSE_MS).length;
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
      ${wantsTyping && html`<label>Type the number to go on <input inputmode="numeric" autocomplete="off" value=${typed} onInput=${(event) => setTyped(event.currentTarget.value)} /></label>`}
      <div class="buttons">
        <button type="button" data-focus onClick=${() => onClose(false)}>Do nothing</button>
        <${Act} className="danger" why=${wantsTyping && typed.replace(/[\s,.]/g, "") !== String(count) ? "type the number first" : null} onClick=${run}>${action.verb} ${plural(count, noun)}<//>
      </div>`}
    ${(phase === "run" || phase === "done") && html`
      <p role=${phase === "done" ? "status" : undefined}>${results.length.toLocaleString("en")} of ${count.toLocaleString("en")} answered${phase === "done" && results.length < count ? "; the others were not sent" : ""}.</p>
      <progress max=${count} value=${results.length} aria-label="Progress"></progress>
      ${groups.size > 0 && html`<div class="table-box"><table><thead><tr><th scope="col">Answer</th><th scope="col" class="number">Number</th><th scope="col">Such as</th></tr></thead>
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
