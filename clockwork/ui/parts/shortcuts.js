/** Shortcuts: silent in fields, and off if the reader wants (WCAG 2.1.4). */
import { html, useEffect, useState } from "../lib.js";
import { shortcutsOn, toggleRefresh } from "../state/prefs.js";
import { go, href } from "../state/url.js";
import { Dialog } from "./dialog.js";

const PREFIX_MS = 1_500;

/** @param {EventTarget | null} target */
function inField(target) {
  return target instanceof HTMLElement
    && (target.isContentEditable || ["INPUT", "TEXTAREA", "SELECT"].includes(target.tagName)
      // A box is no text field: letters do nothing in it.
      ) && !(target instanceof HTMLInputElement && ["checkbox", "radio", "button"].includes(target.type));
}

/** Rows of the table that the reader is in. */
const rows = () => [.../** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("main tbody tr"))];
/** @type {(element: Element | null) => HTMLElement | null} */
const rowOf = (element) => (element instanceof Element ? element.closest("main tbody tr") : null);

/** @param {number} step */
function focusRow(step) {
  const all = rows();
  if (all.length === 0) return;
  const at = all.indexOf(/** @type {HTMLElement} */ (rowOf(document.activeElement)));
  const row = all[Math.min(all.length - 1, Math.max(0, at + step))];
  const target = /** @type {HTMLElement | null} */ (row.querySelector("th a") ?? row.querySelector("a, button, input"));
  target?.focus();
  row.scrollIntoView({ block: "nearest" });
}

/** Focuses the first action that is on; the first of all if none is: it says why. */
function focusAction() {
  const first = /** @type {HTMLElement | null} */ (document.querySelector("main [data-actions]"));
  const on = /** @type {HTMLElement | null | undefined} */ (first?.parentElement?.querySelector("button:not([aria-disabled='true'], .quiet), a.button"));
  (on ?? first)?.focus();
}

/** The shortcuts, and their list. @param {{pages: {path: string, title: string, shortcut: string}[]}} props */
export function Shortcuts({ pages }) {
  const [help, setHelp] = useState(false);
  useEffect(() => {
    let prefix = 0;
    const typed = (/** @type {KeyboardEvent} */ event) => {
      if (event.key === "Escape" && event.target instanceof HTMLElement && event.target.id === "search") event.target.blur();
      if (event.ctrlKey || event.metaKey || event.altKey || inField(event.target)) return;
      if (document.querySelector("dialog[open]")) return;
      if (!shortcutsOn.get()) return;
      if (event.key === "?") {
        event.preventDefault();
        setHelp(true);
        return;
      }
      const afterG = Date.now() - prefix < PREFIX_MS;
      prefix = 0;
      const page = afterG && pages.find((each) => each.shortcut === event.key);
      if (page) go(href(page.path));
      else if (afterG && event.key === "n") go(href("/new"));
      else if (event.key === "g") prefix = Date.now();
      else if (event.key === "/") document.getElementById("search")?.focus();
      else if (event.key === "j") focusRow(1);
      else if (event.key === "k") focusRow(-1);
      else if (event.key === "x") /** @type {HTMLElement | null | undefined} */ (rowOf(document.activeElement)?.querySelector("input[type=checkbox]"))?.click();
      else if (event.key === ".") focusAction();
      else if (event.key === "r") /** @type {HTMLElement | null} */ (document.querySelector("main .as-of button"))?.click();
      else if (event.key === "p") toggleRefresh();
      else return;
      event.preventDefault();
    };
    document.addEventListener("keydown", typed);
    return () => document.removeEventListener("keydown", typed);
  }, []);
  if (!help) return null;
  const list = [
    ["/", "search"],
    ...pages.map((each) => [`g ${each.shortcut}`, each.title]),
    ["g n", "New schedule"], ["j k", "next and previous row"], ["x", "select the row"], [".", "actions"], ["r", "refresh"], ["Esc", "leaves the search"],
    ["p", "pause and go on with updates"], ["?", "this list"],
  ];
  return html`<${Dialog} title="Shortcuts" onClose=${() => setHelp(false)}>
    <dl class="facts">${list.map(([key, text]) => html`<dt><kbd>${key}</kbd></dt><dd>${text}</dd>`)}</dl>
    <p class="muted">They can be turned off beside the time zone.</p>
    <div class="buttons"><button type="button" data-focus onClick=${() => setHelp(false)}>Close</button></div>
  <//>`;
}
