/**
 * One WebSocket to a gateway, made again when it is lost.
 *
 * It is ready when the gateway has answered a first ping, so a refusal is told to who connects. Where nothing was heard
 * for a while it pings; where that is not answered it takes the connection for lost, without waiting for the network
 * to say so.
 */

import { Backoff } from "./backoff.js";
import { DisconnectedError, type Problem, problemError } from "./errors.js";
import type { Http } from "./http.js";

const QUIET = 20_000;
const PATIENCE = 10_000;
const REFUSED: Record<number, Problem> = {
  4401: { type: "urn:dure:problem:unauthorized", title: "Not authorized", status: 401 },
  4403: { type: "urn:dure:problem:forbidden", title: "Forbidden", status: 403 },
};
const PROTOCOL = "dure.v1";

interface SocketEvent {
  readonly data?: unknown;
  readonly code?: number;
  readonly reason?: string;
}

/** What is needed of a WebSocket: the browser's, Node's, or that of the package `ws`. */
export interface WebSocketLike {
  readonly readyState: number;
  send(data: string): void;
  close(code?: number, reason?: string): void;
  addEventListener(type: "open" | "message" | "close" | "error", listener: (event: SocketEvent) => void): void;
}

type Timer = ReturnType<typeof setTimeout>;

/** One that is given to `Dure` gets the token as a header, which a browser's cannot send. */
export type WebSocketClass = new (
  url: string,
  protocols: string[],
  options?: { headers: Record<string, string> },
) => WebSocketLike;

/** A message as the gateway's AsyncAPI document has it. @internal */
export interface Message {
  readonly type: string;
  readonly ref?: string;
  readonly [more: string]: unknown;
}

/** @internal */
export interface Listener {
  /** What is sent now arrives. */
  opened(): void;
  heard(message: Message): void;
  /** The connection is gone, and the next one is to come. `code` is the WebSocket's. */
  lost(error: DisconnectedError, code: number): void;
  /** There will be no other. */
  ended(error: Error): void;
}

/** @internal */
export class Socket {
  readonly #http: Http;
  readonly #class: WebSocketClass;
  readonly #listener: Listener;
  readonly #stop = new AbortController();
  #open: WebSocketLike | undefined;
  /** Whether a new token was shown, since the last one that was good. */
  #renewed = false;
  #ready!: () => void;
  /** When the gateway has answered for the first time; never, if it ends before. */
  readonly ready = new Promise<void>((resolve) => {
    this.#ready = resolve;
  });

  constructor(http: Http, type: WebSocketClass, listener: Listener) {
    this.#http = http;
    this.#class = type;
    this.#listener = listener;
  }

  /** Whether there is a connection to send on; what is sent without one is not kept. */
  send(message: Message): boolean {
    if (this.#open?.readyState !== 1) return false;
    this.#open.send(JSON.stringify(message));
    return true;
  }

  close(): void {
    this.#stop.abort(new DisconnectedError("the connection was closed"));
  }

  /** Until it is closed or refused. */
  async run(): Promise<void> {
    const backoff = new Backoff(this.#http.pauses, this.#http.onRetry);
    const { signal } = this.#stop;
    try {
      for (;;) {
        const socket = await this.#connect();
        signal.throwIfAborted();
        const error = await this.#connection(socket, backoff);
        signal.throwIfAborted();
        await backoff.wait(error, signal);
        signal.throwIfAborted();
      }
    } catch (error) {
      this.#listener.ended(error as Error);
    }
  }

  async #connect(): Promise<WebSocketLike> {
    const token = await this.#http.token();
    const url = this.#http.address(["ws"]);
    url.protocol = url.protocol.replace("http", "ws");
    if (!token) return new this.#class(url.href, [PROTOCOL]);
    if (this.#class !== (globalThis.WebSocket as unknown)) {
      return new this.#class(url.href, [PROTOCOL], { headers: { Authorization: `Bearer ${token}` } });
    }
    return new this.#class(url.href, [PROTOCOL, `bearer.${token}`]);
  }

  /** Until it is lost; a ProblemError if the next one would be refused as well. */
  async #connection(socket: WebSocketLike, backoff: Backoff): Promise<DisconnectedError> {
    const { signal } = this.#stop;
    let problem: Problem | undefined;
    let timer: Timer | undefined;
    this.#open = socket;
    const code = await new Promise<number>((lost) => {
      const stop = () => lost(1000);
      const ping = () => {
        timer = setTimeout(lost, PATIENCE, 1006);
        this.send({ type: "ping" });
      };
      timer = setTimeout(lost, QUIET + PATIENCE, 1006);
      signal.addEventListener("abort", stop, { once: true });
      socket.addEventListener("open", () => {
        if (this.send({ type: "ping" })) this.#listener.opened();
      });
      socket.addEventListener("message", ({ data }) => {
        if (this.#open !== socket) return;
        clearTimeout(timer);
        timer = setTimeout(ping, QUIET);
        const message = JSON.parse(data as string) as Message;
        if (message.type === "pong") {
          this.#renewed = false;
          backoff.reset();
          this.#ready();
        } else if (message.type === "error" && message.ref === undefined) {
          problem = message["problem"] as Problem;
        }
        this.#listener.heard(message);
      });
      socket.addEventListener("error", () => {}); // a close follows, which says all that may be known
      socket.addEventListener("close", ({ code = 1006 }) => {
        signal.removeEventListener("abort", stop);
        lost(code);
      });
    });
    clearTimeout(timer);
    this.#open = undefined;
    socket.close();
    const refused = REFUSED[code];
    const renews = code === 4401 && this.#http.canRenew && !this.#renewed;
    if (refused && !renews) throw problemError(problem ?? refused);
    this.#renewed ||= renews;
    const cause = problem && problemError(problem);
    const error = new DisconnectedError(`the connection was lost (code ${code})`, { cause });
    if (!signal.aborted) this.#listener.lost(error, code);
    return error;
  }
}
