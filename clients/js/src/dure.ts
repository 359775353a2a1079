import type { WatchOptions } from "./channel.js";
import type { JobEvent } from "./events.js";
import { Job, Workflow } from "./handle.js";
import { Http, type HttpOptions } from "./http.js";
import type { Grant, JobFilter, JobRecord, Submission, Token } from "./records.js";
import { Connection } from "./connection.js";
import { follow, HttpChannel } from "./stream.js";
import type { WebSocketClass } from "./socket.js";
import { bodyOf, jobOf } from "./submission.js";

export interface DureOptions extends HttpOptions {
  /** For Node before 22, which has none of its own: the class of the package `ws`. */
  WebSocket?: WebSocketClass;
}

/** A gateway of Dure. */
export class Dure {
  readonly #http: Http;
  readonly #options: DureOptions;

  /**
   * `url` is where the gateway is: the part before `/api/v1`, by default that of the page. `token` is a browser token or
   * an API key, or a function that gives one each time it is needed. `pauses` and `onRetry` are about connections that
   * are lost.
   */
  constructor(options: DureOptions = {}) {
    this.#options = options;
    this.#http = new Http(options);
  }

  /** Submits a job, and answers when it is kept: it runs then, whatever becomes of the caller. */
  async submit<Result = unknown, Chunk = unknown>(
    task: string,
    submission: Submission & { signal?: AbortSignal } = {},
  ): Promise<Job<Result, Chunk>> {
    const { idempotency_key: key, signal, ...rest } = submission;
    const receipt = await this.#http.json<JobRecord>(["tasks", task], {
      method: "POST",
      body: bodyOf(rest),
      signal,
      ...(key === undefined ? {} : { headers: { "Idempotency-Key": key } }),
    });
    return jobOf(receipt, this.#http, (http) => new HttpChannel(http));
  }

  job<Result = unknown, Chunk = unknown>(id: string): Job<Result, Chunk> {
    return new Job(id, this.#http, new HttpChannel(this.#http));
  }

  workflow<Result = unknown>(id: string): Workflow<Result> {
    return new Workflow(id, this.#http, new HttpChannel(this.#http));
  }

  /**
   * What the jobs that fit tell, from now on. Behind `after`, which may be a Unix time in milliseconds, first the jobs that
   * changed since then, as they are now, each at least once. It has no end: leave the loop, or abort the signal.
   */
  events({ task, queue, tag }: JobFilter = {}, options: WatchOptions = {}): AsyncIterableIterator<JobEvent> {
    const feed = follow(this.#http, ["events"], { query: { task, queue, tag }, ...options });
    return feed as AsyncIterableIterator<JobEvent>;
  }

  /** A token that a browser may have. Needs an API key, so it is for servers. */
  mint(grant: Grant): Promise<Token> {
    return this.#http.json(["tokens"], { method: "POST", body: grant });
  }

  /** One WebSocket for any number of jobs. */
  connect(): Promise<Connection> {
    return Connection.open(this.#http, this.#options.WebSocket);
  }
}
