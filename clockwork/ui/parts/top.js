/** The bar above every page: menu, search, live or paused, time zone, theme, who the reader is. */
import { html, useRef, useState } from "../lib.js";
import { SKEW_MS_MAX, skew, useNow } from "../state/clock.js";
import { useObservable } from "../state/observable.js";
import { trouble } from "../state/poll.js";
import { browserZone, isZone, refreshOffSince, setShortcuts, setTheme, setTimeForm, setZone, shortcutsOn, theme, timeForm, toggleRefresh, useZone } from "../state/prefs.js";
import { logout, useMe } from "../state/session.js";
import { go, href } from "../state/url.js";
import { lengthText, ZONES } from "./time.js";

/** @param {{menu: boolean, onMenu: () => void, cluster?: string}} props */
export function TopBar({ menu, onMenu, cluster }) {
  const who = useMe();
  const off = useObservable(skew);
  return html`<div class="top-row">
      <button type="button" class="menu-button" aria-expanded=${menu} aria-controls="nav" onClick=${onMenu}>
        <${Icon} name="menu" /> Menu</button>
      <a class="brand" href=${href("/")}><${Icon} name="clock" /> <span class="brand-name">Clockwork</span> <span class="cluster" title="Name of the cluster">${cluster}</span></a>
      <${Search} />
      <${Live} />
      <${Settings} />
      ${who && who.auth !== "none" && html`<${AccountMenu} who=${who} />`}
    </div>
    ${Math.abs(off) > SKEW_MS_MAX && html`<p class="skew" role="status"><span aria-hidden="true">▲ </span>Your clock is ${lengthText(off)} ${off > 0 ? "behind" : "ahead of"} the service's. Times relative to now are by the service's clock.</p>`}`;
}

function Search() {
  const [text, setText] = useState("");
  return html`<form class="search" role="search" onSubmit=${(event) => {
    event.preventDefault();
    if (text.trim()) go(href("/search", { q: text.trim() }));
  }}>
    <label class="sr-only" for="search">Search a schedule: client/key, or a whole key. Keys are compared exactly.</label>
    <input id="search" type="search" placeholder="A whole key, client/key, or a client" autocomplete="off" spellcheck=${false} value=${text} onInput=${(event) => setText(event.currentTarget.value)} />
  </form>`;
}

/** Whether the page is live, and what keeps it from that. A click pauses it, or lets it go on. */
function Live() {
  const since = useObservable(refreshOffSince);
  const kept = useObservable(trouble);
  useNow(1_000);
  const [mark, text] = since !== null ? ["‖", `Paused ${lengthText(Date.now() - since)}`] : kept === "away" ? ["▲", "Not answered"] : kept === "limit" ? ["◆", "Over a limit"] : ["●", "Live"];
  return html`<button type="button" class=${`live ${since !== null ? "off" : kept ?? ""}`} aria-pressed=${since !== null} onClick=${toggleRefresh}>
    <span aria-hidden="true">${mark}</span> ${text}</button>`;
}

function Settings() {
  const menu = useRef(/** @type {HTMLDetailsElement | null} */ (null));
  const zone = useZone();
  const form = useObservable(timeForm);
  const dark = useObservable(theme);
  const letters = useObservable(shortcutsOn);
  const [typed, setTyped] = useState("");
  const [wrong, setWrong] = useState("");
  const take = (/** @type {string} */ name) => {
    if (!isZone(name)) {
      setWrong(`${name} is no time zone that this browser knows.`);
      return;
    }
    setWrong("");
    setTyped("");
    setZone(name);
  };
  const choices = [...new Set([browserZone, "UTC", zone])];
  return html`<details class="drop" ref=${menu} onKeyDown=${(event) => {
    if (event.key === "Escape" && menu.current?.open) {
      menu.current.open = false;
      menu.current.querySelector("summary")?.focus();
    }
  }}>
    <summary><${Icon} name="gear" /> <span class="zone-name">${zone}</span><span class="sr-only">, time zone and theme</span></summary>
    <div class="drop-box">
      <fieldset><legend>Time zone</legend>
        ${choices.map((name) => html`<label class="choice"><input type="radio" name="zone" checked=${zone === name} onChange=${() => take(name)} /> ${name}${name === browserZone ? " (this browser)" : ""}</label>`)}
        <label>Another
          <input list="zones" placeholder=${ZONES[1] ?? "UTC"} value=${typed} spellcheck=${false} autocomplete="off" aria-invalid=${wrong ? "true" : undefined}
            onInput=${(event) => setTyped(event.currentTarget.value)}
            onChange=${(event) => event.currentTarget.value && take(event.currentTarget.value.trim())} /></label>
        ${wrong && html`<p class="field-error" role="alert">${wrong}</p>`}
      </fieldset>
      <fieldset><legend>Times</legend>
        ${[["both", "Date and time, and how far away"], ["absolute", "Date and time"], ["relative", "How far away"]].map(([name, text]) =>
          html`<label class="choice"><input type="radio" name="times" checked=${form === name} onChange=${() => setTimeForm(name)} /> ${text}</label>`)}
      </fieldset>
      <fieldset><legend>Theme</legend>
        ${[["auto", "As the system says"], ["light", "Light"], ["dark", "Dark"]].map(([name, text]) =>
          html`<label class="choice"><input type="radio" name="theme" checked=${dark === name} onChange=${() => setTheme(name)} /> ${text}</label>`)}
      </fieldset>
      <label class="choice"><input type="checkbox" checked=${letters} onChange=${(event) => setShortcuts(event.currentTarget.checked)} /> Single letters are shortcuts</label>
      <p class="muted">Clockwork ${document.documentElement.dataset.version} · <kbd>?</kbd> shortcuts</p>
    </div>
  </details>`;
}

/** @param {{who: Api.MeDocument}} props */
function AccountMenu({ who }) {
  return html`<details class="drop"><summary><${Icon} name="person" /> <span class="person-name">${who.name}</span></summary>
    <div class="drop-box">
      <dl class="facts">
        <dt>Name</dt><dd>${who.name}</dd>
        <dt>Rights</dt><dd>${who.rights.join(", ") || "none"}</dd>
        <dt>Clients</dt><dd>${who.clients.join(", ")}</dd>
        <dt>Topics</dt><dd>${who.topics.join(", ")}</dd>
      </dl>
      ${who.redacted && html`<p>Content of schedules is not shown to you.</p>`}
      ${who.session && html`<button type="button" onClick=${logout}>Log out</button>`}
    </div></details>`;
}

const ICONS = {
  menu: "M2 4h12M2 8h12M2 12h12",
  clock: "M8 1.5a6.5 6.5 0 1 0 0 13a6.5 6.5 0 1 0 0-13M8 4.5V8l2.5 1.8",
  gear: "M3 4h6M13 4h0M11 2.5v3M3 8h1M8 8h5M6 6.5v3M3 12h6M13 12h0M11 10.5v3",
  person: "M8 2a3 3 0 1 0 0 6a3 3 0 1 0 0-6M2.5 14c.5-3 2.5-4.5 5.500-4.500s5 1.500 5.500 4.500",
};

/** @param {{name: keyof typeof ICONS}} props */
export const Icon = ({ name }) => html`<svg class="icon" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" focusable="false"><path d=${ICONS[name]} fill="none" stroke="currentColor" stroke-width="1.6" stroke-linecap="round" stroke-linejoin="round" /></svg>`;
