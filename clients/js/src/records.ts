/** What the gateway answers and takes, under the names that the HTTP interface has. */

import type { Failure } from "./events.js";

export type WorkflowState = "STARTED" | "SUCCESS" | "FAILURE" | "REVOKED";
export type JobState = "SCHEDULED" | "WAITING" | "ACCEPTED" | "QUEUED" | "RETRY" | WorkflowState;

/** Why a job ended FAILURE or REVOKED; a later gateway may know more than these. */
export type Reason =
  | "error"
  | "expired"
  | "unregistered"
  | "worker-lost"
  | "time-limit"
  | "unserializable"
  | "rejected"
  | "delivery-limit"
  | "lost"
  | "upstream-failed"
  | "terminated"
  | "revoked"
  | "ignored"
  | "skipped"
  | (string & {});

/** The record of a job; moments are ISO 8601 in UTC. */
export interface JobRecord<Result = unknown> {
  readonly id: string;
  readonly task: string;
  readonly state: JobState;
  readonly reason: Reason | null;
  readonly args: readonly unknown[] | null;
  readonly kwargs: Readonly<Record<string, unknown>> | null;
  readonly result: Result | null;
  readonly error: Failure | null;
  readonly attempts: number;
  readonly worker: string | null;
  readonly queue: string | null;
  readonly priority: number | null;
  readonly retries: number | null;
  readonly time_limit: number | null;
  readonly tags: readonly string[];
  readonly unique_key: string | null;
  readonly workflow_id: string | null;
  readonly node: string | null;
  readonly retry_of: string | null;
  readonly replaced_by: string | null;
  readonly created_at: string | null;
  readonly eta: string | null;
  readonly expires: string | null;
  readonly queued_at: string | null;
  readonly started_at: string | null;
  readonly finished_at: string | null;
  readonly cancel_requested_at: string | null;
  readonly changed_at: string | null;
  readonly runtime: number | null;
  readonly [more: string]: unknown;
}

export interface NodeRecord {
  readonly name: string;
  readonly kind: "task" | "value" | "map" | "wait";
  readonly job: string;
  readonly task: string | null;
  readonly state: JobState;
  readonly reason: Reason | null;
  readonly attempts: number;
  readonly error: { readonly type: string; readonly message: string } | null;
  readonly [more: string]: unknown;
}

export interface WorkflowRecord {
  readonly id: string;
  readonly name: string | null;
  readonly state: WorkflowState;
  readonly reason: Reason | null;
  readonly counts: Readonly<Partial<Record<JobState, number>>>;
  readonly progress: { readonly done: number; readonly total: number };
  readonly nodes: readonly NodeRecord[];
  readonly created_at: string;
  readonly finished_at: string | null;
  readonly cancel_requested_at: string | null;
  readonly [more: string]: unknown;
}

/** The arguments and options of a submission. Durations are seconds, moments ISO 8601 with an offset or a `Date`. */
export interface Submission {
  args?: readonly unknown[];
  kwargs?: Readonly<Record<string, unknown>>;
  queue?: string;
  priority?: number;
  delay?: number;
  eta?: string | Date;
  expires?: string | Date | number;
  retries?: number;
  time_limit?: number;
  tags?: readonly string[];
  unique_key?: string;
  unique_until?: "started" | "finished";
  unique_for?: number;
  /** Submitting with a key twice makes one job. */
  idempotency_key?: string;
}

/** Which jobs a feed of many is about; all if nothing is said. */
export interface JobFilter {
  task?: string;
  queue?: string;
  tag?: string;
}

/** What a token is for: one job, workflow or task, and what may be done with it. */
export type Grant = ({ job: string } | { workflow: string } | { task: string }) & {
  allow?: readonly ("watch" | "submit" | "cancel")[];
  /** Seconds. */
  expires_in?: number;
};

export interface Token {
  readonly token: string;
  readonly expires_at: string;
}
