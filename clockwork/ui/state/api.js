/**
 * The HTTP API as the page calls it. An answer is read as text and kept so: what clients wrote is shown from the text
 * (parts/json.js), never from parsed numbers. What else is parsed keeps integers beyond 2^53, as bigints (exact.js).
 */
import { learn } from "./clock.js";
import { jsonText, parseJson } from "./exact.js";
import { createObservable } from "./observable.js";
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
    /** The problem's detail; empty if it only repeats the field messages. */
    this.detail = problem.detail === (problem.errors ?? []).map((each) => `${each.field}: ${each.message}`).join("; ") ? "" : problem.detail ?? "";
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

  /** The first message about a field, or a member of it. @param {string} field */
  about(field) {
    return this.problem.errors?.find((each) => isWithin(each.field, field))?.message;
  }

  /**
   * What is left of it once a field was changed; null: nothing.
   * @param {string} field
   * @returns {ApiError | null}
   */
  without(field) {
    const all = this.problem.errors ?? [];
    const errors = all.filter((each) => !isWithin(each.field, field));
    if (errors.length === all.length) return this;
    if (errors.length === 0) return null;
    return new ApiError({ status: this.status, problem: { ...this.problem, detail: this.detail, errors }, retryAfterS: this.retryAfterS });
  }
}

/** @param {string} member @param {string} field */
const isWithin = (member, field) => member === field || member.startsWith(`${field}.`);

/** Whether an answer, or none (0), means that the node was not reached: it is away, or not ready. @param {number} status */
export const isAway = (status) => [0, 502, 503, 504].includes(status);
/** False if the last call of any part of the page got no answer, or 502 to 504. */
export const nodeReachable = createObservable(true);

/** Read units of the calls that a read made, by the AbortSignal of the read. */
const unitsBySignal = /** @type {WeakMap<AbortSignal, number>} */ (new WeakMap());
/** Read units that a read has cost so far. @param {AbortSignal} signal */
export const unitsOf = (signal) => unitsBySignal.get(signal) ?? 0;

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

/** The longest time for which the service shares an answer among equal requests (docs/dashboard.md, "Cost of a view"). */
const SHARED_MS_MAX = 10_000;
let bypassUntilMs = -Infinity;

/**
 * For the next 10 s, every call asks past shared answers (`no-cache`): they may be older than the reader's change or Refresh.
 * What is to take them nevertheless says so (`TAKE_SHARED`).
 */
export const bypassSharedAnswers = () => {
  bypassUntilMs = performance.now() + SHARED_MS_MAX;
};

/**
 * Calls that only read, though they are no GET: what polls by them would read past shared answers for as long as it is open.
 * @type {Set<string>}
 */
const READING = new Set(["/schedules/get", "/jobs/preview"]);

/** Headers of a call that takes a shared or recorded answer even then. */
export const TAKE_SHARED = { "cache-control": "max-age=0" };

let loginNeeded = () => {};
/** Sets what is done when an answer says that a login is needed. @param {() => void} handler */
export const onLoginNeeded = (handler) => {
  loginNeeded = handler;
};

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
  const content = text ?? (body === undefined ? undefined : jsonText(body));
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
        // Without it, browsers add `no-cache` to a request that is not to be stored, and no reader would share an answer.
        ...(performance.now() < bypassUntilMs ? { "cache-control": "no-cache" } : TAKE_SHARED),
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
    nodeReachable.set(false);
    throw new ApiError({
      status: 0,
      problem: { title: "The node does not answer", detail: "The request did not get through, or its answer did not." },
    });
  } finally {
    // Carried out or not: the reader looks now at what became of it.
    if (method !== "GET" && !READING.has(path)) bypassSharedAnswers();
  }
  nodeReachable.set(!isAway(answer.status));
  const units = Number.parseFloat(answer.headers.get("clockwork-read-units") ?? "");
  if (signal && units > 0) unitsBySignal.set(signal, unitsOf(signal) + units);
  const type = answer.headers.get("content-type") ?? "";
  let data = /** @type {any} */ (null);
  if (answered && (unchanged || type.includes("json"))) {
    try {
      data = parseJson(answered);
    } catch {
      throw new ApiError({
        status: 0,
        problem: { title: "An answer that is no JSON", detail: "Something between the page and the node may be in the way." },
      });
    }
  }
  if (!answer.ok && !unchanged) {
    if (answer.status === 401 && path !== "/session") loginNeeded();
    const after = Number.parseInt(answer.headers.get("retry-after") ?? "", 10);
    throw new ApiError({
      status: answer.status,
      problem: data ?? { title: `HTTP ${answer.status}`, detail: answer.statusText },
      retryAfterS: Number.isNaN(after) ? null : after,
    });
  }
  if (method === "GET") keepPolled(place, answer.headers.get("etag"), answered);
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
