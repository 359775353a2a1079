/**
 * What goes over a connection's WebSocket: each request has a `ref`, under which its answers and events come.
 *
 * When the WebSocket is lost the next one watches each feed again, behind the last event that came, under a new ref:
 * what may still come under the old one is not heard. Requests that got no answer are sent again where that does nothing
 * twice.
 */

import { Backoff } from "./backoff.js";
import type { Channel, Subject, WatchOptions } from "./channel.js";
import { DisconnectedError, type Problem, type ProblemError, problemError } from "./errors.js";
import type { FeedEvent } from "./events.js";
import { Feed, type Watcher } from "./feed.js";
import type { Http } from "./http.js";
import { type Listener, type Message, Socket, type WebSocketClass } from "./socket.js";

interface Call {
  message: Message;
  /** Whether it may be sent again when nobody knows what became of it. */
  readonly again: boolean;
  readonly resolve: (answer: Message) => void;
  readonly reject: (error: unknown) => void;
  sent: boolean;
  renewed?: boolean;
}

const TOO_BIG = 1009;

/** @internal */
export class Switchboard implements Channel, Watcher, Listener {
  readonly #http: Http;
  readonly #socket: Socket;
  readonly #calls = new Map<string, Call>();
  readonly #feeds = new Map<string, Feed>();
  readonly #stop = new AbortController();
  #pings: Call[] = [];
  #refs = 0;

  constructor(http: Http, type: WebSocketClass) {
    this.#http = http;
    this.#socket = new Socket(http, type, this);
  }

  async open(): Promise<void> {
    const { signal } = this.#stop;
    void this.#socket.run();
    await new Promise<void>((resolve, reject) => {
      void this.#socket.ready.then(resolve);
      signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    });
  }

  close(): void {
    this.#socket.close();
  }

  /** Sends a request; `again` if a lost connection is no reason not to send it a second time. */
  call(request: Omit<Message, "ref">, again: boolean, feed?: Feed): Promise<Message> {
    const ref = this.#ref();
    if (feed) this.#watched(feed, ref);
    return new Promise((resolve, reject) => {
      if (this.#stop.signal.aborted) return reject(this.#stop.signal.reason);
      const message = { ...request, ref } as Message;
      this.#calls.set(ref, { message, again, resolve, reject, sent: this.#socket.send(message) });
    });
  }

  ping(): Promise<Message> {
    return new Promise((resolve, reject) => {
      if (this.#stop.signal.aborted) return reject(this.#stop.signal.reason);
      const message = { type: "ping" };
      this.#pings.push({ message, again: true, resolve, reject, sent: this.#socket.send(message) });
    });
  }

  // Channel: of the handles.

  watch(subject: Subject, options: WatchOptions): Feed {
    return new Feed(this, subject, options);
  }

  async cancel(subject: Subject): Promise<void> {
    await this.call({ type: "cancel", ...subject }, true);
  }

  // Watcher: of the feeds.

  begin(feed: Feed, token?: string): void {
    if (this.#stop.signal.aborted) return feed.fail(this.#stop.signal.reason);
    const ref = this.#ref();
    this.#watched(feed, ref);
    const { subject, last } = feed;
    const more = { ...(last === undefined ? {} : { after: last }), ...(token === undefined ? {} : { token }) };
    this.#socket.send({ type: "watch", ref, ...subject, ...more });
  }

  end(feed: Feed): void {
    const { ref } = feed;
    if (ref === undefined || !this.#feeds.delete(ref)) return;
    this.#socket.send({ type: "unwatch", ref });
    feed.ref = undefined;
  }

  // Listener: to the socket.

  opened(): void {
    for (const feed of [...this.#feeds.values()]) this.#again(feed);
    for (const call of [...this.#pings, ...this.#calls.values()]) {
      if (!call.sent) call.sent = this.#socket.send(call.message);
    }
  }

  heard(message: Message): void {
    const { type, ref = "" } = message;
    const feed = this.#feeds.get(ref);
    if (type === "event") feed?.push(eventOf(message));
    else if (type === "done") feed?.over();
    else if (type === "pong") this.#pings.splice(0).forEach(({ resolve }) => resolve(message));
    else if (type === "error") this.#refused(ref, problemError(message["problem"] as Problem));
    else this.#answered(ref)?.resolve(message);
    if (feed?.isOver) this.#feeds.delete(ref);
  }

  lost(error: DisconnectedError, code: number): void {
    for (const [ref, call] of this.#calls) {
      if (call.sent && (code === TOO_BIG || !call.again)) {
        const why = "the connection was lost before the answer came; whether it was done is not known";
        this.#answered(ref)?.reject(new DisconnectedError(why, { cause: error }));
      }
      call.sent = false;
    }
    for (const ping of this.#pings) ping.sent = false;
  }

  ended(error: Error): void {
    this.#stop.abort(error);
    for (const call of [...this.#pings.splice(0), ...this.#calls.values()]) call.reject(error);
    for (const feed of this.#feeds.values()) feed.fail(error);
    this.#calls.clear();
    this.#feeds.clear();
  }

  #ref(): string {
    return String(++this.#refs);
  }

  #answered(ref: string): Call | undefined {
    const call = this.#calls.get(ref);
    this.#calls.delete(ref);
    return call;
  }

  #refused(ref: string, error: ProblemError): void {
    const call = this.#calls.get(ref);
    const feed = this.#feeds.get(ref);
    const about = call ?? feed;
    if (about && !about.renewed && this.#http.canRenew && [401, 403].includes(error.status)) {
      about.renewed = true;
      void this.#renew(ref, about);
    } else if (call) {
      this.#answered(ref)?.reject(error);
    } else if (feed && error.passing) {
      void this.#later(feed, error);
    } else feed?.fail(error);
  }

  /** The connection's token may have run out meanwhile, so one message comes with a new one. */
  async #renew(ref: string, about: Call | Feed): Promise<void> {
    try {
      const token = await this.#http.token();
      if (about instanceof Feed) return this.#again(about, token);
      about.message = { ...about.message, token };
      about.sent = this.#socket.send(about.message);
    } catch (error) {
      if (about instanceof Feed) about.fail(error);
      else this.#answered(ref)?.reject(error);
    }
  }

  #watched(feed: Feed, ref: string): void {
    feed.ref = ref;
    this.#feeds.set(ref, feed);
  }

  /** What is still being submitted is watched by its own message, sent again or not. */
  #again(feed: Feed, token?: string): void {
    if (feed.ref === undefined || !feed.subject || this.#feeds.get(feed.ref) !== feed) return;
    this.#feeds.delete(feed.ref);
    this.begin(feed, token);
  }

  /** The gateway cannot tell of it just now. */
  async #later(feed: Feed, error: ProblemError): Promise<void> {
    await new Backoff(this.#http.pauses, this.#http.onRetry).wait(error, this.#stop.signal, 1);
    this.#again(feed);
  }
}

function eventOf({ id, event, data }: Message): FeedEvent {
  return { id, kind: event, data } as FeedEvent;
}
