/** What a feed tells. `kind` says which; `id` resumes the feed behind the event. Times are Unix seconds. */

import type { JobState, Reason, WorkflowState } from "./records.js";

interface Where {
  readonly job: string;
  readonly at: number;
  /** Where it is known: in `state` and `result`. */
  readonly task?: string;
  readonly workflow?: string;
  readonly node?: string;
}

export interface Failure {
  readonly type: string;
  readonly message: string;
  readonly traceback?: string | null;
  readonly fingerprint?: string | null;
}

interface Event<Kind extends string, Data> {
  readonly id: string;
  readonly kind: Kind;
  readonly data: Data;
}

export type StateEvent = Event<
  "state",
  Where & {
    readonly state: JobState;
    readonly attempt: number;
    readonly worker: string | null;
    readonly reason: Reason | null;
    /** Of a job that ended, in a feed of many. */
    readonly result?: unknown;
    readonly error?: Failure | null;
  }
>;

/** What else the task told beside these three is there too. */
export type ProgressEvent = Event<
  "progress",
  Where & {
    readonly current: number | null;
    readonly total: number | null;
    readonly message: string | null;
    readonly [more: string]: unknown;
  }
>;

export type OutputEvent<Chunk = unknown> = Event<"output", Where & { readonly chunk: Chunk }>;

export type LogEvent = Event<
  "log",
  Where & { readonly level: string; readonly logger: string; readonly message: string }
>;

/** So many older entries are not kept any more. */
export type DroppedEvent = Event<"dropped", Where & { readonly entries: number }>;

/** The last of a job's feed; a feed of many tells of a job's end as a state. */
export type ResultEvent<Result = unknown> = Event<
  "result",
  Where & {
    readonly state: JobState;
    readonly attempt: number;
    readonly worker: string | null;
    readonly reason: Reason | null;
    readonly result?: Result;
    readonly error?: Failure | null;
  }
>;

/** How far a whole workflow is. */
export type WorkflowEvent = Event<
  "workflow",
  {
    readonly workflow: string;
    readonly at: number;
    readonly state: WorkflowState;
    readonly counts: Readonly<Partial<Record<JobState, number>>>;
    readonly progress: { readonly done: number; readonly total: number };
  }
>;

/** The last of a workflow's feed. */
export type WorkflowResultEvent<Result = unknown> = Event<
  "result",
  {
    readonly workflow: string;
    readonly at: number;
    readonly state: WorkflowState;
    readonly reason?: Reason | null;
    readonly result?: Result;
    readonly error?: Failure | null;
  }
>;

/** What a job's feed tells. */
export type JobEvent<Result = unknown, Chunk = unknown> =
  | StateEvent
  | ProgressEvent
  | OutputEvent<Chunk>
  | LogEvent
  | DroppedEvent
  | ResultEvent<Result>;

/** What a workflow's feed tells: what its nodes tell, and how the whole fares. */
export type FlowEvent<Result = unknown> =
  | StateEvent
  | ProgressEvent
  | OutputEvent
  | LogEvent
  | DroppedEvent
  | WorkflowEvent
  | WorkflowResultEvent<Result>;

/** Any event, before anybody said which feed it is of. */
export type FeedEvent = JobEvent | FlowEvent;
