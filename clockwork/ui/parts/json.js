/**
 * JSON as it was written: tokens are coloured and folded, never parsed into numbers, so a 64-bit integer stays what it is.
 */
import { html, useMemo, useState } from "../lib.js";
import { Copy, SafeText, plural } from "./text.js";

/** @import { Hole } from "../lib.js" */

/** Of a longer text only this much is shown. */
export const SHOWN_CHARS_MAX = 64 * 1024;
const FOLDED_FROM = 200;

const SPACE = /[ \t\n\r]*/y;
const TOKEN = /([{}[\],:])|("(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*")|(-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|true|false|null)/y;

/**
 * @typedef {{kind: "object" | "array" | "string" | "number" | "word", from: number, to: number, text?: string,
 *            members?: Member[]}} Node
 * @typedef {{name?: string, value: Node}} Member
 */

/** A text is no JSON; `at`: the characters before its first fault. */
class JsonFault extends SyntaxError {
  /** @param {number} at */
  constructor(at) {
    super(`no JSON at ${at}`);
    this.at = at;
  }
}

/**
 * The parts of a JSON text (RFC 8259), each with its place in it. Raises: JsonFault.
 * @param {string} text
 * @returns {Node}
 */
export function treeOf(text) {
  let at = 0;
  const skipSpace = () => {
    SPACE.lastIndex = at;
    SPACE.exec(text);
    at = SPACE.lastIndex;
  };
  const next = () => {
    skipSpace();
    TOKEN.lastIndex = at;
    const found = TOKEN.exec(text);
    if (!found) throw new JsonFault(at);
    at = TOKEN.lastIndex;
    return found;
  };
  /** @type {(found: RegExpExecArray) => JsonFault} */
  const unexpected = (found) => new JsonFault(at - found[0].length);
  /** @type {(found: RegExpExecArray) => Node} */
  const value = (found) => {
    const token = found[1] ?? found[2] ?? found[3];
    const from = at - token.length;
    if (found[2]) return { kind: "string", from, to: at, text: token };
    if (found[3]) return { kind: /^[-0-9]/.test(token) ? "number" : "word", from, to: at, text: token };
    if (token !== "{" && token !== "[") throw unexpected(found);
    const [kind, close] = token === "{" ? /** @type {const} */ (["object", "}"]) : /** @type {const} */ (["array", "]"]);
    /** @type {Member[]} */
    const members = [];
    let each = next();
    while (each[1] !== close) {
      if (members.length > 0) {
        if (each[1] !== ",") throw unexpected(each);
        each = next();
      }
      if (kind === "array") members.push({ value: value(each) });
      else {
        if (!each[2]) throw unexpected(each);
        const name = JSON.parse(each[2]);
        const colon = next();
        if (colon[1] !== ":") throw unexpected(colon);
        members.push({ name, value: value(next()) });
      }
      each = next();
    }
    return { kind, from, to: at, members };
  };
  const whole = value(next());
  skipSpace();
  if (at < text.length) throw new JsonFault(at);
  return whole;
}

/** The place of the first fault of a text that should be JSON, in words; null: it is JSON. @param {string} text */
export function jsonFault(text) {
  try {
    treeOf(text);
    return null;
  } catch (error) {
    if (!(error instanceof JsonFault)) throw error;
    if (error.at >= text.length) return text.trim() ? "This is no JSON: it ends too early." : "This is no JSON: it is empty.";
    const before = text.slice(0, error.at).split("\n");
    return `This is no JSON: see line ${before.length}, column ${/** @type {string} */ (before.at(-1)).length + 1}.`;
  }
}

/**
 * The text of a part of a JSON text, as it was written; null if there is none.
 * @param {string} text
 * @param {(string | number)[]} path names and numbers of members
 */
export function memberText(text, path) {
  let node = treeOf(text);
  for (const step of path) {
    const found = typeof step === "number" ? node.members?.[step] : node.members?.find((each) => each.name === step);
    if (!found) return null;
    node = found.value;
  }
  return text.slice(node.from, node.to);
}

/** A JSON text with indents, its tokens as they were. Raises: SyntaxError. @param {string} text */
export function pretty(text) {
  /** @type {(node: Node, indent: string) => string} */
  const write = (node, indent) => {
    if (!node.members) return /** @type {string} */ (node.text);
    if (node.members.length === 0) return node.kind === "object" ? "{}" : "[]";
    const inner = `${indent}  `;
    const lines = node.members.map(({ name, value }) =>
      `${inner}${name === undefined ? "" : `${JSON.stringify(name)}: `}${write(value, inner)}`);
    return `${node.kind === "object" ? "{" : "["}\n${lines.join(",\n")}\n${indent}${node.kind === "object" ? "}" : "]"}`;
  };
  return write(treeOf(text), "");
}

/** A link that saves a text as a file. @param {{text: string, name: string, label?: string}} props */
export function Download({ text, name, label = "Download all" }) {
  const save = () => {
    const url = URL.createObjectURL(new Blob([text], { type: "application/octet-stream" }));
    const link = document.createElement("a");
    link.href = url;
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  };
  return html`<button type="button" class="small" onClick=${save}>${label}</button>`;
}

/**
 * Content of a schedule.
 * @param {{text: string, name?: string, label?: string}} props `text`: JSON, as it was written
 */
export function Json({ text, name = "content.json", label = "Content" }) {
  const cut = text.length > SHOWN_CHARS_MAX;
  const tree = useMemo(() => {
    if (cut) return null;
    try {
      return treeOf(text);
    } catch {
      return null;
    }
  }, [text]);
  return html`<div class="json">
    <div class="json-tools">
      <${Copy} text=${text} label="Copy" />
      ${cut && html`<span>The first ${SHOWN_CHARS_MAX / 1024} KiB of ${Math.ceil(text.length / 1024)}. </span><${Download} text=${text} name=${name} />`}
    </div>
    <pre tabindex="0" role="group" aria-label=${label}>${tree === null
      ? html`<${SafeText} text=${text.slice(0, SHOWN_CHARS_MAX)} lines />`
      : html`<${JsonNode} node=${tree} depth=${0} />`}</pre>
  </div>`;
}

/** @param {{node: Node, depth: number, name?: string}} props */
function JsonNode({ node, depth, name }) {
  const start = name === undefined ? null : html`<span class="j-name"><${SafeText} text=${JSON.stringify(name)} /></span>: `;
  if (!node.members) {
    return html`${start}<span class=${`j-${node.kind}`}><${SafeText} text=${node.text} /></span>`;
  }
  return html`<${Fold} node=${node} depth=${depth} start=${start} />`;
}

/** @param {{node: Node & {members: Member[]}, depth: number, start: Hole}} props */
function Fold({ node, depth, start }) {
  const { members } = node;
  const [first, last] = node.kind === "object" ? ["{", "}"] : ["[", "]"];
  const [open, setOpen] = useState(depth < 3 && members.length <= FOLDED_FROM);
  if (members.length === 0) return html`${start}${first}${last}`;
  const count = plural(members.length, node.kind === "object" ? "member" : "item");
  return html`${start}<button type="button" class="fold" aria-expanded=${open} onClick=${() => setOpen(!open)}>
      <span aria-hidden="true">${open ? "▾" : "▸"}</span><span class="sr-only">${open ? "fold" : "unfold"} ${count}</span></button>${first}${
    open
      ? html`<div class="j-members">${members.map(({ name, value }, number) =>
          html`<div><${JsonNode} node=${value} depth=${depth + 1} name=${name} />${number < members.length - 1 ? "," : ""}</div>`)}</div>`
      : html`<span class="muted"> ${count} </span>`
  }${last}`;
}

/** Base64 content: bytes as hex and as text beside each other. @param {{base64: string}} props */
export function Bytes({ base64 }) {
  const lines = useMemo(() => {
    let bytes;
    try {
      bytes = atob(base64.slice(0, (SHOWN_CHARS_MAX / 4) | 0));
    } catch {
      return null;
    }
    const found = [];
    for (let at = 0; at < Math.min(bytes.length, 4096); at += 16) {
      const row = bytes.slice(at, at + 16);
      const hex = [...row].map((each) => each.charCodeAt(0).toString(16).padStart(2, "0")).join(" ");
      const plain = [...row].map((each) => (each >= " " && each <= "~" ? each : "·")).join("");
      found.push(`${at.toString(16).padStart(6, "0")}  ${hex.padEnd(47)}  ${plain}`);
    }
    return found;
  }, [base64]);
  return html`<div class="json"><div class="json-tools"><${Copy} text=${base64} label="Copy base64" />
    ${base64.length > 5461 && html`<span>The first 4 KiB. </span><${Download} text=${base64} name="content.base64" />`}</div>
    <pre tabindex="0" role="group" aria-label="Bytes">${lines === null ? base64 : lines.join("\n")}</pre></div>`;
}
