/** A dialog: the browser's own, so focus is kept inside, Escape closes it, and focus returns to where it was. */
import { html, useEffect, useRef } from "../lib.js";
import { useBlockRefresh } from "../state/poll.js";

/** @import { Hole } from "../lib.js" */

let ids = 0;

/**
 * Focuses the element that is marked for it; the browser's `autofocus` reports itself in the console. A long dialog is not
 * scrolled to it: its buttons stay in view at the bottom, and the reader begins at the top.
 * @param {HTMLElement | null} dialog
 */
export function intoFocus(dialog) {
  /** @type {HTMLElement | null | undefined} */ (dialog?.querySelector("[data-focus]"))?.focus({ preventScroll: true });
}

/**
 * @param {{title: Hole, onClose: () => void, children?: Hole, wide?: boolean, closes?: boolean}} props
 *   `closes`: false while something is under way that Escape should not hide
 */
export function Dialog({ title, onClose, children, wide = false, closes = true }) {
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  const id = useRef(`dialog-${(ids += 1)}`);
  useBlockRefresh(true);
  useEffect(() => {
    const before = document.activeElement;
    const opened = dialog.current;
    opened?.showModal();
    intoFocus(opened);
    return () => {
      // While it is open, everything behind it is inert and takes no focus.
      opened?.close();
      if (before instanceof HTMLElement && before.isConnected) before.focus();
      else document.querySelector("h1")?.focus();
    };
  }, []);
  useEffect(() => {
    // What had the focus may be gone with the step before.
    if (!dialog.current?.contains(document.activeElement) || document.activeElement === dialog.current) intoFocus(dialog.current);
  });
  return html`<dialog ref=${dialog} class=${wide ? "wide" : ""} aria-labelledby=${id.current}
      onCancel=${(event) => {
        event.preventDefault();
        if (closes) onClose();
      }}
      onClose=${(event) => {
        // A browser lets Escape be refused once or twice, and then closes the dialog by itself.
        if (!event.currentTarget.isConnected) return;
        if (closes) onClose();
        else event.currentTarget.showModal();
      }}>
    <h2 id=${id.current}>${title}</h2>
    ${children}
  </dialog>`;
}
