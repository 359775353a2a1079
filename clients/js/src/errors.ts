/**
 * Error
 * ├── ProblemError        the gateway said no, in a problem document (RFC 9457)
 * │   └── FailedError     the job or the workflow ended FAILURE or REVOKED
 * ├── DisconnectedError   the connection was lost, or never made
 * └── TimeoutError        the time for an answer is over
 */

import type { Failure } from "./events.js";
import type { JobState, Reason } from "./records.js";

export interface Problem {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly detail?: string;
  readonly errors?: readonly { readonly loc: readonly (string | number)[]; readonly message: string }[];
  readonly [more: string]: unknown;
}

const URN = "urn:dure:problem:";

export class ProblemError extends Error {
  override readonly name: string = "ProblemError";
  readonly problem: Problem;
  /** Seconds to wait before asking again, where the gateway said so. */
  readonly retryAfter: number | undefined;

  constructor(problem: Problem, retryAfter?: number) {
    super(problem.detail ? `${problem.title}: ${problem.detail}` : problem.title);
    this.problem = problem;
    this.retryAfter = retryAfter;
  }

  get status(): number {
    return this.problem.status;
  }

  /** The last word of the problem's type, such as `unknown-job`. */
  get code(): string {
    return this.problem.type.replace(URN, "");
  }

  /** Whether the same request may be answered well later. @internal */
  get passing(): boolean {
    return [408, 425, 429].includes(this.status) || (this.status >= 500 && !(this instanceof FailedError));
  }
}

/** The job or the workflow ended FAILURE or REVOKED. */
export class FailedError extends ProblemError {
  override readonly name = "FailedError";

  get state(): JobState {
    return this.problem["state"] as JobState;
  }

  get reason(): Reason | null {
    return (this.problem["reason"] as Reason | undefined) ?? null;
  }

  /** What the task raised, where it raised. */
  get error(): Failure | null {
    return (this.problem["error"] as Failure | undefined) ?? null;
  }
}

export class DisconnectedError extends Error {
  override readonly name = "DisconnectedError";
}

export class TimeoutError extends Error {
  override readonly name = "TimeoutError";
}

/** @internal */
export function problemError(problem: Problem, retryAfter?: number): ProblemError {
  const failed = problem.type === `${URN}job-failed` || problem.type === `${URN}workflow-failed`;
  return new (failed ? FailedError : ProblemError)(problem, retryAfter);
}

/** The error that a feed's last event tells, as `GET …/result` would. @internal */
export function failedError(
  kind: "job" | "workflow",
  data: { readonly state: string; readonly reason?: unknown; readonly error?: Failure | null },
): ProblemError {
  const why = data.error ? `${data.error.type}: ${data.error.message}` : (data.reason ?? "no reason was told");
  return problemError({
    type: `${URN}${kind}-failed`,
    title: `The ${kind} failed`,
    status: 500,
    detail: `it ended ${data.state}: ${why}`,
    ...data,
  });
}

/** @internal */
export async function answerError(response: Response): Promise<ProblemError> {
  const after = retryAfter(response.headers.get("Retry-After"));
  const text = await response.text().catch(() => "");
  if (/\bjson\b/.test(response.headers.get("Content-Type") ?? "")) {
    try {
      const problem = JSON.parse(text) as Problem;
      if (typeof problem?.type === "string") return problemError(problem, after);
    } catch {
      // What a proxy calls JSON may be none.
    }
  }
  const title = response.statusText || `HTTP ${response.status}`;
  return problemError({ type: "about:blank", title, status: response.status, detail: text.slice(0, 500) }, after);
}

function retryAfter(header: string | null): number | undefined {
  if (!header) return undefined;
  const seconds = /^\d+$/.test(header) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return seconds >= 0 ? seconds : undefined;
}
