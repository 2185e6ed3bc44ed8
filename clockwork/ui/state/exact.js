/**
 * JSON with exact integers. `JSON.parse` makes doubles of numbers, which round integers beyond 2^53; the API has some of 64
 * bits, such as the offsets of records. Here they are read as bigints, are shown as they were written, and go back so.
 *
 * That takes the text of a number while it is parsed, and raw JSON while it is written: browsers of 2025 and later have both,
 * Chromium since 2023. Others round such an integer, as JavaScript does.
 */

/** Digits without which no integer is unsafe; few answers have so many in a row, and the others are parsed as they are. */
const MANY_DIGITS = /\d{16}/;
const INTEGER = /^-?\d+$/;

/** @param {string} _name @param {unknown} value @param {{source?: string}} [context] of a number: its text */
function exact(_name, value, context) {
  if (typeof value !== "number" || Number.isSafeInteger(value)) return value;
  return context?.source !== undefined && INTEGER.test(context.source) ? BigInt(context.source) : value;
}

/** What a JSON text says; an integer that a number cannot hold is a bigint. Raises: SyntaxError. @param {string} text */
export const parseJson = (text) => JSON.parse(text, MANY_DIGITS.test(text) ? exact : undefined);

/** @param {string} _name @param {unknown} value */
function raw(_name, value) {
  // any: the declarations of TypeScript do not have it.
  return typeof value === "bigint" ? /** @type {any} */ (JSON).rawJSON(String(value)) : value;
}

/** The JSON text of a value that `parseJson` gave, or that was made of parts of one. @param {unknown} value */
export const jsonText = (value) => JSON.stringify(value, raw);
