/** Any number of jobs over one WebSocket. */

import type { Channel, Subject } from "./channel.js";
import { Feed } from "./feed.js";
import { Job, Workflow } from "./handle.js";
import type { Http } from "./http.js";
import type { JobRecord, Submission } from "./records.js";
import type { WebSocketClass } from "./socket.js";
import { bodyOf, jobOf } from "./submission.js";
import { Switchboard } from "./switchboard.js";

export class Connection {
  readonly #http: Http;
  readonly #board: Switchboard;

  private constructor(http: Http, board: Switchboard) {
    this.#http = http;
    this.#board = board;
  }

  /** @internal */
  static async open(http: Http, given?: WebSocketClass): Promise<Connection> {
    const type = given ?? (globalThis.WebSocket as unknown as WebSocketClass | undefined);
    if (!type) throw new TypeError("there is no WebSocket here: give new Dure({WebSocket}) that of the package ws");
    const board = new Switchboard(http, type);
    await board.open();
    return new Connection(http, board);
  }

  /**
   * Submits a job and watches it from its first event on; with `watch: false` `events()` begins to. Where its WebSocket
   * is lost before the answer it is a DisconnectedError, or it is sent again if it has an `idempotency_key`.
   */
  async submit<Result = unknown, Chunk = unknown>(
    task: string,
    { watch = true, ...submission }: Submission & { watch?: boolean } = {},
  ): Promise<Job<Result, Chunk>> {
    const feed = watch ? new Feed(this.#board) : undefined;
    const { idempotency_key: key, ...rest } = submission;
    const once = key === undefined ? {} : { idempotency_key: key };
    const request = { type: "submit", task, ...bodyOf(rest), ...once, watch };
    const answer = await this.#board.call(request, key !== undefined, feed).catch((error: unknown) => {
      feed?.fail(error);
      throw error;
    });
    const receipt = answer["job"] as JobRecord & { token?: string };
    const { id, token } = receipt;
    const subject = { job: id, ...(token === undefined ? {} : { token }) };
    if (feed) feed.subject = subject;
    return jobOf(receipt, this.#http, () => this.#channel(subject, feed));
  }

  job<Result = unknown, Chunk = unknown>(id: string): Job<Result, Chunk> {
    return new Job(id, this.#http, this.#board);
  }

  workflow<Result = unknown>(id: string): Workflow<Result> {
    return new Workflow(id, this.#http, this.#board);
  }

  /** Until the gateway has answered. */
  async ping(): Promise<void> {
    await this.#board.ping();
  }

  /** Ends the connection and every feed of it; the jobs run on. */
  close(): void {
    this.#board.close();
  }

  /** Of a job that was submitted here: the first to ask for its events gets those that came already. */
  #channel(subject: Subject, first: Feed | undefined): Channel {
    const board = this.#board;
    let feed = first;
    return {
      watch(_, options) {
        const taken = options.after === undefined ? feed : undefined;
        if (!taken) return board.watch(subject, options);
        feed = undefined;
        if (options.signal) taken.stopBy(options.signal);
        return taken;
      },
      cancel: () => board.cancel(subject),
    };
  }
}
