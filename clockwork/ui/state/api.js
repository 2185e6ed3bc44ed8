/**
 * The HTTP API as the page calls it. An answer is read as text and kept so: JavaScript rounds integers beyond 2^53, so what
 * clients wrote is shown from the text (parts/json.js), never from parsed numbers.
 */
import { learn } from "./clock.js";
import { base } from "./url.js";

/**
 * @typedef {object} Answer
 * @property {number} status
 * @property {any} data the parsed document, or null
 * @property {string} text the document as it was sent
 * @property {string | null} etag
 * @property {number | null} readUnits what the answer cost, in read units
 */

/** An answer that is no success, or none at all (`status` 0). */
export class ApiError extends Error {
  /** @param {{status: number, problem: any, retryAfterS?: number | null}} what */
  constructor({ status, problem, retryAfterS = null }) {
    super(problem.detail || problem.title);
    this.status = status;
    /** The problem document (RFC 9457). */
    this.problem = problem;
    this.retryAfterS = retryAfterS;
  }

  /** The last part of the problem's type. */
  get kind() {
    return String(this.problem.type ?? "").split(":").at(-1);
  }

  /** Messages by the field that they are about. */
  get fields() {
    return new Map((this.problem.errors ?? []).map((each) => [each.field, each.message]));
  }
}

/** What is done when an answer says that a login is needed; session.js sets it. */
export const told = { loginNeeded: () => {} };

/**
 * Calls the API. Raises: ApiError; what `fetch` raises when it is aborted.
 * @param {string} method
 * @param {string} path such as `/schedules`
 * @param {{query?: Record<string, any>, body?: any, text?: string, headers?: Record<string, string>,
 *          signal?: AbortSignal}} [more] `body` is sent as JSON, `text` as it is
 * @returns {Promise<Answer>}
 */
export async function call(method, path, { query = {}, body, text, headers = {}, signal } = {}) {
  const asked = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== "") asked.set(name, String(value));
  }
  const content = text ?? (body === undefined ? undefined : JSON.stringify(body));
  const sentMs = Date.now();
  let answer, answered;
  try {
    answer = await fetch(`${base}${path}${asked.size ? `?${asked}` : ""}`, {
      method,
      headers: {
        "clockwork-ui": "1",
        ...(content === undefined ? {} : { "content-type": "application/json" }),
        ...headers,
      },
      body: content,
      signal,
      credentials: "same-origin",
      cache: "no-store",
      redirect: "error",
    });
    learn(answer.headers.get("date"), sentMs);
    answered = await answer.text();
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError({
      status: 0,
      problem: { title: "The node does not answer", detail: "The request did not get through, or its answer did not." },
    });
  }
  const type = answer.headers.get("content-type") ?? "";
  let data = null;
  if (answered && type.includes("json")) {
    try {
      data = JSON.parse(answered);
    } catch {
      throw new ApiError({
        status: 0,
        problem: { title: "An answer that is no JSON", detail: "Something between the page and the node may be in the way." },
      });
    }
  }
  if (!answer.ok && answer.status !== 304) {
    if (answer.status === 401 && path !== "/session") told.loginNeeded();
    const after = Number.parseInt(answer.headers.get("retry-after") ?? "", 10);
    throw new ApiError({
      status: answer.status,
      problem: data ?? { title: `HTTP ${answer.status}`, detail: answer.statusText },
      retryAfterS: Number.isNaN(after) ? null : after,
    });
  }
  const units = Number.parseFloat(answer.headers.get("clockwork-read-units") ?? "");
  return {
    status: answer.status,
    data,
    text: answered,
    etag: answer.headers.get("etag"),
    readUnits: Number.isNaN(units) ? null : units,
  };
}

/** Whether a key can stand in a path: a browser folds `.` and `..` away, percent-encoded or not. */
export const fitsPath = (key) => key !== "." && key !== "..";

/** The path of a schedule. */
export const schedulePath = (clientId, key, rest = "") =>
  `/schedule/${encodeURIComponent(clientId)}/${encodeURIComponent(key)}${rest}`;

/** The path of a job. */
export const jobPath = (clientId, jobId, rest = "") =>
  `/jobs/${encodeURIComponent(clientId)}/${encodeURIComponent(jobId)}${rest}`;
