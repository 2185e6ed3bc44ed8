/** Preact, its hooks and htm, bound together: every module of the page imports them from here. */
import { Fragment, h, render } from "./vendor/preact.js";
import htm from "./vendor/htm.js";

export { Fragment, h, render };
export {
  useCallback, useEffect, useErrorBoundary, useLayoutEffect, useMemo, useRef, useState,
} from "./vendor/hooks.js";

/** @import { VNode } from "./vendor/preact.js" */

/**
 * A template as elements. Attributes and children are not checked: a template has no types. The member with `any` gives the
 * parameter of a handler in a template its type, which differs from attribute to attribute.
 * @typedef {string | number | boolean | bigint | symbol | object | null | undefined | ((event: any) => unknown)} Hole
 * @type {(strings: TemplateStringsArray, ...holes: Hole[]) => VNode}
 */
export const html = /** @type {any} */ (htm.bind(h));
