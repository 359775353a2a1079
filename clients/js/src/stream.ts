/**
 * Feeds as server-sent events over `fetch`, which can send headers where the browser's EventSource cannot.
 *
 * A connection ends by an error, by a proxy's or a gateway's wish, or in silence (the gateway sends a comment each 15
 * seconds, so 45 seconds without a byte mean that nobody is there). In each case the next one asks for what is behind
 * the last event that was given. A feed of one job or workflow is over after its `result`, or when the gateway answers
 * 204: nothing is behind the last event.
 */

import { createParser, type EventSourceMessage } from "eventsource-parser";

import { Backoff } from "./backoff.js";
import { pathOf, type Channel, type Subject, type WatchOptions } from "./channel.js";
import { DisconnectedError, ProblemError } from "./errors.js";
import type { FeedEvent } from "./events.js";
import type { Http, Query } from "./http.js";

const SILENCE = 45;

/** @internal */
export class HttpChannel implements Channel {
  readonly #http: Http;

  constructor(http: Http) {
    this.#http = http;
  }

  watch(subject: Subject, options: WatchOptions): AsyncIterableIterator<FeedEvent> {
    return follow(this.#http, [...pathOf(subject), "events"], { ends: true, ...options });
  }

  async cancel(subject: Subject): Promise<void> {
    await this.#http.ask([...pathOf(subject), "cancel"], { method: "POST" });
  }
}

interface Follow extends WatchOptions {
  query?: Query;
  /** Whether `result` is the last event. */
  ends?: boolean;
}

/** One feed, over as many connections as it takes. @internal */
export async function* follow(
  http: Http,
  path: readonly string[],
  { after, signal, query, ends = false }: Follow,
): AsyncGenerator<FeedEvent, void, undefined> {
  const backoff = new Backoff(http.pauses, http.onRetry);
  const stop = new AbortController();
  const abort = () => stop.abort(signal?.reason);
  signal?.addEventListener("abort", abort);
  if (signal?.aborted) abort();
  let last = after;
  try {
    for (;;) {
      let why: unknown;
      let atLeast: number | undefined;
      try {
        for await (const events of stream(http, path, query, last, stop.signal)) {
          if (events === null) return;
          for (const event of events) {
            backoff.reset();
            last = event.id || last;
            yield event;
            stop.signal.throwIfAborted();
            if (ends && event.kind === "result") return;
          }
        }
        why = new DisconnectedError("the gateway closed the connection");
      } catch (error) {
        stop.signal.throwIfAborted();
        if (error instanceof ProblemError ? !error.passing : !(error instanceof DisconnectedError)) throw error;
        atLeast = error instanceof ProblemError ? error.retryAfter : undefined;
        why = error;
      }
      await backoff.wait(why, stop.signal, atLeast);
      stop.signal.throwIfAborted();
    }
  } finally {
    signal?.removeEventListener("abort", abort);
    stop.abort();
  }
}

/** What one connection brings, as it arrives; null if nothing is behind `last` any more. */
async function* stream(
  http: Http,
  path: readonly string[],
  query: Query | undefined,
  last: string | undefined,
  signal: AbortSignal,
): AsyncGenerator<FeedEvent[] | null, void, undefined> {
  const own = new AbortController();
  const abort = () => own.abort(signal.reason);
  const silent = () => own.abort(new DisconnectedError(`nothing was heard for ${SILENCE} s`));
  signal.addEventListener("abort", abort);
  if (signal.aborted) abort();
  let silence = setTimeout(silent, SILENCE * 1000);
  try {
    const headers = { Accept: "text/event-stream", ...(last === undefined ? {} : { "Last-Event-ID": last }) };
    const response = await http.ask(path, { query, headers, signal: own.signal });
    if (response.status === 204) yield null;
    if (!response.body) return;
    const reader = response.body.getReader();
    const decoder = new TextDecoder();
    let events: FeedEvent[] = [];
    const parser = createParser({ onEvent: (message) => events.push(read(message)) });
    for (;;) {
      const { value, done } = await reader.read().catch((error: unknown) => {
        own.signal.throwIfAborted();
        throw new DisconnectedError("the connection was lost", { cause: error });
      });
      if (done) return;
      clearTimeout(silence);
      parser.feed(decoder.decode(value, { stream: true }));
      if (events.length > 0) {
        yield events;
        events = [];
      }
      silence = setTimeout(silent, SILENCE * 1000);
    }
  } finally {
    clearTimeout(silence);
    signal.removeEventListener("abort", abort);
    own.abort();
  }
}

function read({ id, event, data }: EventSourceMessage): FeedEvent {
  return { id: id ?? "", kind: event, data: JSON.parse(data) } as FeedEvent;
}
