/** A real table that becomes cards on a narrow screen: keyed rows, sort in the URL, selection by row and by page. */
import { html, useEffect, useRef } from "../lib.js";
import { setParams, usePlace } from "../state/url.js";

/** @import { Hole } from "../lib.js" */

/**
 * @template [R=any] the rows
 * @typedef {object} Column
 * @property {string} id
 * @property {string} label
 * @property {(row: R) => Hole} cell
 * @property {boolean} [sorts] the server sorts by it
 * @property {string} [className]
 * @property {boolean} [head] the cell names its row
 */

/**
 * @param {{caption: string, columns: Column[], rows: any[], keyOf: (row: any) => string, nameOf?: (row: any) => string,
 *          selected?: Set<string>, onSelect?: (selected: Set<string>) => void, sort?: {by: string, order: string},
 *          changed?: Set<string>, compact?: boolean, marked?: string | null}} props
 *   `compact`: a name and a number, which stay a table on a narrow screen; `marked`: key of the row that a link leads to
 */
export function Table({ caption, columns, rows, keyOf, nameOf = keyOf, selected, onSelect, sort, changed, compact = false, marked = null }) {
  const { params } = usePlace();
  const all = useRef(/** @type {HTMLInputElement | null} */ (null));
  const chosen = selected ? rows.filter((row) => selected.has(keyOf(row))).length : 0;
  useEffect(() => {
    if (all.current) all.current.indeterminate = chosen > 0 && chosen < rows.length;
  }, [chosen, rows.length]);
  /** @param {string} key */
  const toggle = (key) => {
    const next = new Set(selected);
    if (!next.delete(key)) next.add(key);
    onSelect?.(next);
  };
  const order = sort && (params.get("order") === "desc" ? "desc" : params.get("order") === "asc" ? "asc" : sort.order);
  return html`<div class=${compact ? "table-box compact" : "table-box"} tabindex="0" role="group" aria-label=${caption}>
    <table>
      <caption class="sr-only">${caption}</caption>
      <thead><tr>
        ${selected && html`<th scope="col" class="check"><label class="target"><input type="checkbox" ref=${all} checked=${rows.length > 0 && chosen === rows.length}
          onChange=${() => onSelect?.(chosen === rows.length ? new Set() : new Set(rows.map(keyOf)))} /><span class="sr-only">Select this page</span></label></th>`}
        ${columns.map((column) => html`<th scope="col" class=${column.className ?? ""}
            aria-sort=${column.sorts && sort ? (order === "desc" ? "descending" : "ascending") : undefined}>
          ${column.sorts
            ? html`<button type="button" class="sort" onClick=${() => setParams({ order: order === "desc" ? "asc" : "desc" }, { replace: false })}>
                ${column.label} <span aria-hidden="true">${order === "desc" ? "↓" : "↑"}</span></button>`
            : column.label}
        </th>`)}
      </tr></thead>
      <tbody>
        ${rows.map((row) => {
          const key = keyOf(row);
          return html`<tr key=${key} data-key=${key} class=${changed?.has(key) ? "changed" : ""} aria-selected=${selected ? selected.has(key) : undefined} aria-current=${marked === key ? "true" : undefined}>
            ${selected && html`<td class="check"><label class="target"><input type="checkbox" checked=${selected.has(key)} onChange=${() => toggle(key)} />
              <span class="sr-only">Select ${nameOf(row)}</span></label></td>`}
            ${columns.map((column) => column.head
              ? html`<th scope="row" class=${column.className ?? ""} data-label=${column.label}><div class="cell">${column.cell(row)}</div></th>`
              : html`<td class=${column.className ?? ""} data-label=${column.label}><div class="cell">${column.cell(row)}</div></td>`)}
          </tr>`;
        })}
      </tbody>
    </table>
  </div>`;
}
