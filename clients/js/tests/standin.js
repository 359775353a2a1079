/** A gateway of one process and no worker: it speaks the contract, and fails as a test wants it to. */

import { createServer } from "node:http";
import { once } from "node:events";
import { setImmediate } from "node:timers/promises";
import { WebSocketServer } from "ws";

/** @typedef {{id: string, event: string, data: Record<string, unknown>}} Told */
/** @typedef {(request: import("node:http").IncomingMessage, response: import("node:http").ServerResponse) => void} Answer */
/** @typedef {{socket: import("ws").WebSocket, message: any}} Heard */

/** @param {string} code @param {number} status @param {object} more */
export function problem(code, status, more = {}) {
  return { type: `urn:dure:problem:${code}`, title: "No", status, detail: `it is ${code}`, ...more };
}

/** @param {number} n @param {string} event @param {Record<string, unknown>} data @returns {Told} */
export function told(n, event, data) {
  return { id: `1.1.${n}`, event, data: { job: "job-1", at: 1.5, ...data } };
}

/** @param {string[]} chunks @returns {Told[]} */
export function outputs(...chunks) {
  return chunks.map((chunk, index) => told(index + 1, "output", { chunk }));
}

/** @param {number} n @param {Record<string, unknown>} data */
export function result(n, data = { state: "SUCCESS", result: 42 }) {
  return told(n, "result", data);
}

/** @param {Told} event */
export function framed({ id, event, data }) {
  return `id: ${id}\nevent: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
}

/** @param {import("node:http").ServerResponse} response @param {number} status @param {unknown} body @param {Record<string, string>} headers */
export function json(response, status, body, headers = {}) {
  const type = status < 400 ? "application/json" : "application/problem+json";
  response.writeHead(status, { "Content-Type": type, ...headers }).end(JSON.stringify(body));
}

export class Standin {
  /** What `job-1` told. @type {Told[]} */
  log = [];
  /** How the next requests are answered, one after the other, instead of as usual. @type {Answer[]} */
  plan = [];
  /** Every request: `METHOD path`, headers, body. @type {{line: string, headers: import("node:http").IncomingHttpHeaders, body: any}[]} */
  requests = [];
  /** Every message of a WebSocket. @type {Heard[]} */
  heard = [];
  /** Called for each message; true if it was answered. @type {(heard: Heard) => boolean} */
  hears = () => false;
  /** @type {Set<import("node:http").ServerResponse>} */
  streams = new Set();
  /** Watches by socket and ref. @type {Map<import("ws").WebSocket, Set<string>>} */
  watches = new Map();

  #server = createServer((request, response) => void this.#answer(request, response));
  #sockets = new WebSocketServer({ server: this.#server, path: "/api/v1/ws", handleProtocols: () => "dure.v1" });

  constructor() {
    this.#sockets.on("connection", (socket, request) => {
      this.requests.push({ line: "WS", headers: request.headers, body: undefined });
      this.watches.set(socket, new Set());
      socket.on("close", () => this.watches.delete(socket));
      socket.on("message", (data) => this.#hear({ socket, message: JSON.parse(String(data)) }));
    });
  }

  async start() {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    return this;
  }

  get url() {
    const address = /** @type {import("node:net").AddressInfo} */ (this.#server.address());
    return `http://127.0.0.1:${address.port}`;
  }

  /** @param {Told[]} events */
  tell(...events) {
    this.log.push(...events);
    for (const stream of this.streams) stream.write(events.map(framed).join(""));
    for (const [socket, refs] of this.watches) for (const ref of refs) this.#push(socket, ref, events);
  }

  /** Ends every connection as a cable that is pulled does. */
  cut() {
    for (const stream of this.streams) stream.destroy();
    for (const socket of this.#sockets.clients) socket.terminate();
  }

  /** @param {() => boolean} holds */
  async until(holds) {
    const end = Date.now() + 20_000;
    while (!holds()) {
      if (Date.now() > end) throw new Error(`not within 20 s: ${holds}`);
      await setImmediate();
    }
  }

  close() {
    this.cut();
    this.#server.closeAllConnections();
    this.#server.close();
  }

  /** @param {import("node:http").IncomingMessage} request @param {import("node:http").ServerResponse} response */
  async #answer(request, response) {
    let body = "";
    for await (const part of request) body += part;
    const line = `${request.method} ${request.url}`;
    this.requests.push({ line, headers: request.headers, body: body ? JSON.parse(body) : undefined });
    const planned = this.plan.shift();
    if (planned) return planned(request, response);
    if (request.url?.startsWith("/api/v1/jobs/job-1/events")) return this.stream(request, response);
    if (line === "GET /api/v1/jobs/job-1/result") return this.#result(response);
    if (line.startsWith("POST /api/v1/tasks/")) return json(response, 202, { id: "job-1", state: "ACCEPTED" });
    return json(response, 404, problem("unknown-job", 404));
  }

  /** @param {import("node:http").IncomingMessage} request @param {import("node:http").ServerResponse} response */
  stream(request, response) {
    const behind = this.#behind(request.headers["last-event-id"]);
    if (behind.length === 0 && this.log.at(-1)?.event === "result") return response.writeHead(204).end();
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    response.write(`retry: 1000\n\n${behind.map(framed).join("")}`);
    this.streams.add(response);
    response.on("close", () => this.streams.delete(response));
  }

  /** @param {unknown} id */
  #behind(id) {
    return id === undefined ? this.log : this.log.slice(this.log.findIndex((event) => event.id === id) + 1);
  }

  /** @param {import("node:http").ServerResponse} response */
  #result(response) {
    const last = this.log.at(-1);
    if (last?.event !== "result") return json(response, 202, { id: "job-1", state: "STARTED" }, { "Retry-After": "1" });
    if (last.data["state"] === "SUCCESS") return json(response, 200, { id: "job-1", ...last.data });
    return json(response, 500, problem("job-failed", 500, last.data));
  }

  /** @param {Heard} heard */
  #hear(heard) {
    const { socket, message } = heard;
    this.heard.push(heard);
    if (this.hears(heard)) return;
    const { type, ref } = message;
    const refs = this.watches.get(socket) ?? new Set();
    if (type === "ping") say(socket, { type: "pong" });
    if (type === "submit") say(socket, { type: "accepted", ref, job: { id: "job-1", state: "ACCEPTED" } });
    if (type === "cancel") say(socket, { type: "cancelled", ref, job: message.job });
    if (type === "unwatch") {
      refs.delete(ref);
      say(socket, { type: "done", ref });
    }
    if (type === "watch" || message.watch) {
      refs.add(ref);
      this.#push(socket, ref, this.#behind(message.after));
    }
  }

  /** @param {import("ws").WebSocket} socket @param {string} ref @param {Told[]} events */
  #push(socket, ref, events) {
    for (const event of events) say(socket, { type: "event", ref, ...event });
    if (events.at(-1)?.event === "result") say(socket, { type: "done", ref });
  }
}

/** @param {import("ws").WebSocket} socket @param {object} message */
export function say(socket, message) {
  socket.send(JSON.stringify(message));
}

/** Makes long timers short, so that silence need not be waited for. @param {import("node:test").TestContext} context @param {Record<number, number>} seconds */
export function shorten(context, seconds) {
  const real = globalThis.setTimeout;
  const short = (/** @type {() => void} */ call, /** @type {number} */ ms = 0, /** @type {any[]} */ ...rest) =>
    real(call, (seconds[ms / 1000] ?? ms / 1000) * 1000, ...rest);
  context.mock.method(globalThis, "setTimeout", /** @type {any} */ (short));
}
