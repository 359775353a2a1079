/** One job or one workflow, by its id: ask after it, follow it, wait for its end, cancel it. */

import type { Channel, Subject, WatchOptions } from "./channel.js";
import { pathOf } from "./channel.js";
import { DisconnectedError, failedError, ProblemError, TimeoutError } from "./errors.js";
import type { FeedEvent, FlowEvent, JobEvent } from "./events.js";
import type { Http } from "./http.js";
import type { JobRecord, WorkflowRecord } from "./records.js";

export interface ResultOptions {
  /** Seconds; for ever if not said. */
  timeout?: number | undefined;
  signal?: AbortSignal | undefined;
}

abstract class Handle<Record, Event extends FeedEvent, Result> {
  readonly id: string;
  readonly #http: Http;
  readonly #channel: Channel;
  protected abstract readonly kind: "job" | "workflow";
  /** Whether it was made just now, so that asking for its result would be in vain. */
  protected readonly fresh: boolean = false;

  /** @internal */
  constructor(id: string, http: Http, channel: Channel) {
    this.id = id;
    this.#http = http;
    this.#channel = channel;
  }

  /** Its record, as it is now. */
  get(options: { signal?: AbortSignal } = {}): Promise<Record> {
    return this.#http.json(pathOf(this.#subject), options);
  }

  /**
   * All that it tells: first what was, then what happens, and `result` at last. A connection that is lost is made
   * again, and goes on behind the last event, without a gap or a repeat.
   */
  events(options: WatchOptions = {}): AsyncIterableIterator<Event> {
    return this.#channel.watch(this.#subject, options) as AsyncIterableIterator<Event>;
  }

  /** Asks for its end; what has ended already is a ProblemError `job-ended` or `workflow-ended`. */
  cancel(): Promise<void> {
    return this.#channel.cancel(this.#subject);
  }

  /** Its result, when it has one; a FailedError if it failed, a TimeoutError if that took longer than `timeout`. */
  async result({ timeout, signal }: ResultOptions = {}): Promise<Result> {
    const stop = new AbortController();
    const abort = () => stop.abort(signal?.reason);
    signal?.addEventListener("abort", abort);
    if (signal?.aborted) abort();
    const late = () => stop.abort(new TimeoutError(`${this.kind} ${this.id} has not ended within ${timeout} s`));
    const timer = timeout === undefined ? undefined : setTimeout(late, timeout * 1000);
    try {
      return await this.#end(stop.signal);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    }
  }

  /** One question first: the feed of what has ended long ago brings all its output before the result. */
  async #end(signal: AbortSignal): Promise<Result> {
    const known = this.fresh ? undefined : await this.#ask(signal).catch((error: unknown) => {
      const passing = error instanceof DisconnectedError || (error instanceof ProblemError && error.passing);
      if (!passing || signal.aborted) throw error;
      return undefined; // the feed knows how to try again
    });
    if (known) return known.result;
    for await (const { kind, data } of this.events({ signal }) as AsyncIterable<FeedEvent>) {
      if (kind !== "result") continue;
      if (data.state !== "SUCCESS") throw failedError(this.kind, data);
      if ("result" in data) return data.result as Result;
    }
    const told = await this.#ask(signal);
    if (told) return told.result;
    throw new DisconnectedError(`the feed of ${this.kind} ${this.id} is over, and its result is not known`);
  }

  async #ask(signal: AbortSignal): Promise<{ result: Result } | undefined> {
    const response = await this.#http.ask([...pathOf(this.#subject), "result"], { signal });
    return response.status === 202 ? undefined : ((await response.json()) as { result: Result });
  }

  get #subject(): Subject {
    return this.kind === "job" ? { job: this.id } : { workflow: this.id };
  }
}

export class Job<Result = unknown, Chunk = unknown> extends Handle<JobRecord<Result>, JobEvent<Result, Chunk>, Result> {
  protected override readonly kind = "job";
  protected override readonly fresh: boolean;
  /** The record that the submission was answered with. */
  readonly receipt: JobRecord | undefined;

  /** @internal */
  constructor(id: string, http: Http, channel: Channel, receipt?: JobRecord) {
    super(id, http, channel);
    this.receipt = receipt;
    this.fresh = receipt !== undefined;
  }

  /** What the task emits, chunk by chunk; a FailedError at the end if it failed. */
  async *output(options: WatchOptions = {}): AsyncGenerator<Chunk, void, undefined> {
    for await (const { kind, data } of this.events(options)) {
      if (kind === "output") yield data.chunk;
      else if (kind === "result" && data.state !== "SUCCESS") throw failedError("job", data);
    }
  }
}

export class Workflow<Result = unknown> extends Handle<WorkflowRecord, FlowEvent<Result>, Result> {
  protected override readonly kind = "workflow";
}
