/**
 * The events of one watch over a WebSocket, as they wait for their reader.
 *
 * A WebSocket cannot be told to wait. So a reader that is slow is bounded here: with so many events ahead of it the feed
 * is unwatched, and watched again, behind the last event that came, when the reader has caught up.
 */

import type { Subject, WatchOptions } from "./channel.js";
import type { FeedEvent } from "./events.js";

const HELD = 1000;

/** @internal */
export interface Watcher {
  begin(feed: Feed): void;
  end(feed: Feed): void;
}

/** @internal */
export class Feed implements AsyncIterableIterator<FeedEvent> {
  /** The name of its present watch; none while nothing is to come. */
  ref: string | undefined;
  subject: Subject | undefined;
  last: string | undefined;
  /** Whether a new token was shown for it since its last event. */
  renewed = false;
  readonly #watcher: Watcher;
  readonly #events: FeedEvent[] = [];
  #state: "new" | "watched" | "paused" | "over";
  #error: unknown;
  #wake: (() => void) | undefined;
  #forget: (() => void) | undefined;

  constructor(watcher: Watcher, subject?: Subject, { after, signal }: WatchOptions = {}) {
    this.#watcher = watcher;
    this.#state = subject ? "new" : "watched"; // what is submitted is watched before it has an id
    this.subject = subject;
    this.last = after;
    if (signal) this.stopBy(signal);
  }

  stopBy(signal: AbortSignal): void {
    const abort = () => {
      this.#unwatch();
      this.#events.length = 0;
      this.fail(signal.reason);
    };
    if (signal.aborted) return abort();
    signal.addEventListener("abort", abort);
    this.#forget = () => signal.removeEventListener("abort", abort);
  }

  get isOver(): boolean {
    return this.#state === "over";
  }

  push(event: FeedEvent): void {
    if (this.#state !== "watched") return;
    this.last = event.id || this.last;
    this.renewed = false;
    this.#events.push(event);
    if (event.kind === "result") this.over();
    else if (this.#events.length >= HELD && this.subject) {
      this.#watcher.end(this);
      this.#state = "paused";
    }
    this.#wake?.();
  }

  /** Nothing more comes; what waits is still given. */
  over(): void {
    this.#state = "over";
    this.#forget?.();
    this.#wake?.();
  }

  fail(error: unknown): void {
    if (this.#state === "over") return;
    this.#error = error;
    this.over();
  }

  async next(): Promise<IteratorResult<FeedEvent, undefined>> {
    for (;;) {
      const event = this.#events.shift();
      if (event) return { value: event, done: false };
      if (this.#state === "over") {
        const error = this.#error;
        this.#error = undefined;
        if (error !== undefined) throw error;
        return { value: undefined, done: true };
      }
      if (this.#state !== "watched") {
        this.#state = "watched";
        this.#watcher.begin(this);
        continue; // it may have failed
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  async return(): Promise<IteratorResult<FeedEvent, undefined>> {
    this.#unwatch();
    this.#events.length = 0;
    this.over();
    return { value: undefined, done: true };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #unwatch(): void {
    if (this.#state === "watched") this.#watcher.end(this);
  }
}
