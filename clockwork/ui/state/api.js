/**
 * The HTTP API as the page calls it. An answer is read as text and kept so: JavaScript rounds integers beyond 2^53, so what
 * clients wrote is shown from the text (parts/json.js), never from parsed numbers.
 */
import { learn } from "./clock.js";
import { base } from "./url.js";

/**
 * The problem document of an error (RFC 9457), with the members that some kinds of problems have.
 * @typedef {Pick<Api.ProblemDocument, "title" | "detail"> & Partial<Api.ProblemDocument & Api.InvalidDocument & Api.InternalDocument>
 *   & {schedule?: Api.ScheduleDocument, job?: Api.JobDocument}} Problem
 */

/**
 * @template [D=unknown]
 * @typedef {object} Answer
 * @property {number} status
 * @property {D} data the parsed document, or null
 * @property {string} text the document as it was sent
 * @property {string | null} etag
 * @property {number | null} readUnits what the answer cost, in read units
 */

/** An answer that is no success, or none at all (`status` 0). */
export class ApiError extends Error {
  /** @param {{status: number, problem: Problem, retryAfterS?: number | null}} what */
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

const KEPT_MAX = 30;
const KEPT_CHARS_MAX = 1_000_000;
/**
 * The last answers to polls, by path and query: an unchanged one comes as `304` without its text. They are kept here rather
 * than in the browser's cache, which may be on a disk, and for as long as the reader is the same.
 * @type {Map<string, {etag: string, text: string}>}
 */
const polled = new Map();

/** Forgets what was read: another reader may see other things. */
export const forget = () => polled.clear();

/** @param {string} place @param {string | null} etag @param {string} text */
function keepPolled(place, etag, text) {
  polled.delete(place);
  if (!etag?.startsWith("W/") || text.length > KEPT_CHARS_MAX) return;
  polled.set(place, { etag, text });
  if (polled.size > KEPT_MAX) polled.delete(/** @type {string} */ (polled.keys().next().value));
}

/** What is done when an answer says that a login is needed; session.js sets it. */
export const told = { loginNeeded: () => {} };

/**
 * Calls the API. Method and path tell the types of what is sent and answered (infra/ui/api.d.ts). Raises: ApiError; what
 * `fetch` raises when it is aborted.
 * @template {keyof Api.Calls} M
 * @template {Api.Path<M>} P
 * @param {M} method
 * @param {P} path
 * @param {{query?: Api.Query<M, P>, body?: Api.Body<M, P>, text?: string, headers?: Record<string, string>,
 *          signal?: AbortSignal}} [more] `body` is sent as JSON, `text` as it is
 * @returns {Promise<Answer<Api.Answer<M, P>>>}
 */
export async function call(method, path, { query = /** @type {Api.Query<M, P>} */ ({}), body, text, headers = {}, signal } = {}) {
  const asked = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== "") asked.set(name, String(value));
  }
  const content = text ?? (body === undefined ? undefined : JSON.stringify(body));
  const place = `${path}${asked.size ? `?${asked}` : ""}`;
  const last = method === "GET" ? polled.get(place) : undefined;
  const sentMs = Date.now();
  let answer, answered;
  let unchanged = false;
  try {
    answer = await fetch(`${base}${place}`, {
      method,
      headers: {
        "clockwork-ui": "1",
        ...(content === undefined ? {} : { "content-type": "application/json" }),
        ...(last === undefined ? {} : { "if-none-match": last.etag }),
        ...headers,
      },
      body: content,
      signal,
      credentials: "same-origin",
      cache: "no-store",
      redirect: "error",
    });
    learn(answer.headers.get("date"), sentMs);
    unchanged = last !== undefined && answer.status === 304;
    answered = last !== undefined && unchanged ? last.text : await answer.text();
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError({
      status: 0,
      problem: { title: "The node does not answer", detail: "The request did not get through, or its answer did not." },
    });
  }
  const type = answer.headers.get("content-type") ?? "";
  let data = /** @type {any} */ (null);
  if (answered && (unchanged || type.includes("json"))) {
    try {
      data = JSON.parse(answered);
    } catch {
      throw new ApiError({
        status: 0,
        problem: { title: "An answer that is no JSON", detail: "Something between the page and the node may be in the way." },
      });
    }
  }
  if (!answer.ok && !unchanged) {
    if (answer.status === 401 && path !== "/session") told.loginNeeded();
    const after = Number.parseInt(answer.headers.get("retry-after") ?? "", 10);
    throw new ApiError({
      status: answer.status,
      problem: data ?? { title: `HTTP ${answer.status}`, detail: answer.statusText },
      retryAfterS: Number.isNaN(after) ? null : after,
    });
  }
  if (method === "GET") keepPolled(place, answer.headers.get("etag"), answered);
  const units = Number.parseFloat(answer.headers.get("clockwork-read-units") ?? "");
  return {
    status: unchanged ? 200 : answer.status,
    data,
    text: answered,
    etag: answer.headers.get("etag"),
    readUnits: Number.isNaN(units) ? null : units,
  };
}

/** Whether a key can stand in a path: a browser folds `.` and `..` away, percent-encoded or not. @param {string} key */
export const fitsPath = (key) => key !== "." && key !== "..";

/**
 * The path of a schedule.
 * @template {"" | "/why" | "/history" | "/fire" | "/retry"} [R=""]
 * @param {string} clientId @param {string} key @param {R} [rest]
 */
export const schedulePath = (clientId, key, rest = /** @type {R} */ ("")) => /** @type {`/schedule/{clientId}/{scheduleKey}${R}`} */ (
  `/schedule/${encodeURIComponent(clientId)}/${encodeURIComponent(key)}${rest}`);

/**
 * The path of a job.
 * @template {"" | "/logs" | "/versions" | "/pause" | "/resume" | "/run-now" | "/restore"} [R=""]
 * @param {string} clientId @param {string} jobId @param {R} [rest]
 */
export const jobPath = (clientId, jobId, rest = /** @type {R} */ ("")) => /** @type {`/jobs/{clientId}/{jobId}${R}`} */ (
  `/jobs/${encodeURIComponent(clientId)}/${encodeURIComponent(jobId)}${rest}`);
