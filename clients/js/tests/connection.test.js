import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";
import { WebSocket } from "ws";

import { DisconnectedError, Dure, ProblemError } from "@dure/client";

import { outputs, problem, result, say, shorten, Standin, told } from "./standin.js";

/** @typedef {import("@dure/client").Connection} Connection */

/** @type {Standin} */
let gateway;
/** @type {Connection | undefined} */
let connection;
/** @type {unknown[]} */
let retries;

beforeEach(async () => {
  gateway = await new Standin().start();
  retries = [];
});
afterEach(() => {
  connection?.close();
  gateway.close();
});

/** @param {import("@dure/client").DureOptions} options */
async function connect(options = {}) {
  const type = /** @type {import("@dure/client").WebSocketClass} */ (/** @type {unknown} */ (WebSocket));
  const onRetry = (/** @type {unknown} */ error) => void retries.push(error);
  const pauses = { min: 0.001, max: 0.01 };
  connection = await new Dure({ url: gateway.url, pauses, onRetry, WebSocket: type, ...options }).connect();
  return connection;
}

/** @param {string} type */
function messages(type) {
  return gateway.heard.map(({ message }) => message).filter((message) => message.type === type);
}

/** @param {AsyncIterable<import("@dure/client").FeedEvent>} feed */
async function ids(feed) {
  const seen = [];
  for await (const event of feed) seen.push(event.id);
  return seen;
}

describe("a connection", () => {
  it("is there when the gateway has answered", async () => {
    await connect({ token: "t1" });
    assert.deepEqual(messages("ping").length, 1);
    assert.equal(gateway.requests[0]?.headers["sec-websocket-protocol"], "dure.v1");
    assert.equal(gateway.requests[0]?.headers.authorization, "Bearer t1");
  });

  it("shows its token as a subprotocol where the browser's WebSocket is used", async (context) => {
    const before = globalThis.WebSocket;
    context.after(() => void (globalThis.WebSocket = before));
    globalThis.WebSocket = /** @type {any} */ (WebSocket);
    connection = await new Dure({ url: gateway.url, token: "a.b-c" }).connect();
    assert.equal(gateway.requests[0]?.headers["sec-websocket-protocol"], "dure.v1,bearer.a.b-c");
    assert.equal(gateway.requests[0]?.headers.authorization, undefined);
  });

  it("that is refused is a problem, and not tried again", async () => {
    for (const [code, status] of [[4401, 401], [4403, 403]]) {
      gateway.hears = ({ socket }) => (socket.close(code), true);
      await assert.rejects(connect({ token: "t1" }), (error) => error instanceof ProblemError && error.status === status);
    }
    assert.deepEqual(retries, []);
  });

  it("that is refused shows a new token once, if there is a new one", async () => {
    let count = 0;
    gateway.hears = ({ socket }) => (socket.close(4401), true);
    await assert.rejects(connect({ token: () => `t${++count}` }), { status: 401 });
    assert.deepEqual([count, retries.length], [2, 1]);
  });

  it("gets a new token where the old one's time is over", async () => {
    let count = 0;
    const open = await connect({ token: () => `t${++count}` });
    gateway.heard[0]?.socket.close(4401);
    await gateway.until(() => gateway.requests.length === 2);
    await open.ping();
    assert.equal(gateway.requests[1]?.headers.authorization, "Bearer t2");
  });

  it("tries until there is a gateway", async () => {
    let fails = 3;
    class Failing extends WebSocket {
      constructor(/** @type {string} */ url, /** @type {string[]} */ protocols) {
        super(fails-- > 0 ? "ws://127.0.0.1:1" : url, protocols);
      }
    }
    await connect({ WebSocket: /** @type {any} */ (Failing) });
    assert.equal(retries.length, 3);
  });

  it("that is closed ends what it holds, and takes nothing more", async () => {
    const open = await connect();
    const next = open.job("job-1").events().next();
    await gateway.until(() => messages("watch").length === 1);
    open.close();
    await assert.rejects(next, /the connection was closed/);
    await assert.rejects(open.submit("shop.add"), DisconnectedError);
    await assert.rejects(open.job("job-1").events().next(), DisconnectedError);
    await assert.rejects(open.ping(), DisconnectedError);
    assert.deepEqual(retries, []);
  });

  it("takes silence behind a ping for a lost connection", async (context) => {
    shorten(context, { 20: 0.02, 10: 0.02 });
    const open = await connect();
    const [first] = gateway.heard;
    gateway.hears = ({ socket, message }) => message.type === "ping" && socket === first?.socket;
    await gateway.until(() => gateway.requests.length > 1);
    gateway.hears = () => false;
    await open.ping();
  });
});

describe("a submission over a connection", () => {
  it("is watched from its first event on, in one message", async () => {
    gateway.tell(told(1, "state", { state: "ACCEPTED" }));
    const job = await (await connect()).submit("shop.add", { args: [1], delay: 2 });
    gateway.tell(...outputs("a"), result(2));
    assert.deepEqual(messages("submit"), [
      { type: "submit", ref: "1", task: "shop.add", args: [1], kwargs: {}, delay: 2, watch: true },
    ]);
    assert.deepEqual(await ids(job.events()), ["1.1.1", "1.1.1", "1.1.2"]);
    assert.deepEqual(messages("watch"), []);
  });

  it("is not watched if that is said, until its events are asked for", async () => {
    const job = await (await connect()).submit("shop.add", { watch: false });
    gateway.tell(result(1));
    assert.deepEqual(messages("watch"), []);
    assert.equal(await job.result(), 42);
    assert.equal(messages("watch").length, 1);
  });

  it("is waited for no longer than said", async () => {
    const job = await (await connect()).submit("shop.add");
    await assert.rejects(job.result({ timeout: 0.05 }), { name: "TimeoutError" });
    assert.equal(messages("watch").length, 0);
  });

  it("can be read twice", async () => {
    const job = await (await connect()).submit("shop.add");
    gateway.tell(result(1));
    assert.equal(await job.result(), 42);
    assert.deepEqual(await ids(job.events()), ["1.1.1"]);
  });

  it("that does not fit is a problem", async () => {
    gateway.hears = ({ socket, message }) => {
      if (message.type !== "submit") return false;
      say(socket, { type: "error", ref: message.ref, problem: problem("invalid", 422) });
      return true;
    };
    await assert.rejects((await connect()).submit("shop.add"), { code: "invalid" });
  });

  it("whose answer was lost is not known to be done", async () => {
    const open = await connect();
    gateway.hears = ({ socket, message }) => message.type === "submit" && (socket.terminate(), true);
    await assert.rejects(open.submit("shop.add"), /whether it was done is not known/);
    await open.ping();
    assert.equal(messages("submit").length, 1);
  });

  it("whose answer was lost is sent again if it has a key", async () => {
    const open = await connect();
    let lost = 0;
    gateway.hears = ({ socket, message }) => message.type === "submit" && !lost++ && (socket.terminate(), true);
    gateway.tell(result(1));
    const job = await open.submit("shop.add", { idempotency_key: "order-1" });
    assert.deepEqual(messages("submit").map(({ idempotency_key: key }) => key), ["order-1", "order-1"]);
    assert.equal(await job.result(), 42);
  });

  it("with a task's token is watched and cancelled with the job's own on the next connection", async () => {
    gateway.hears = ({ socket, message: { type, ref } }) => {
      if (type === "submit") say(socket, { type: "accepted", ref, job: { id: "job-1", token: "of-the-job" } });
      return type === "submit";
    };
    const open = await connect({ token: "of-the-task" });
    const job = await open.submit("shop.add");
    gateway.cut();
    gateway.tell(result(1));
    assert.deepEqual(await ids(job.events()), ["1.1.1"]);
    await job.cancel();
    assert.deepEqual([...messages("watch"), ...messages("cancel")].map(({ token }) => token), ["of-the-job", "of-the-job"]);
  });

  it("that is too big is not sent again and again", async () => {
    const open = await connect();
    gateway.hears = ({ socket, message }) => message.type === "submit" && (socket.close(1009), true);
    await assert.rejects(open.submit("shop.add", { idempotency_key: "order-1" }), DisconnectedError);
    await open.ping();
    assert.equal(messages("submit").length, 1);
  });
});

describe("a feed over a connection", () => {
  it("goes on behind its last event on the next connection, beside others", async () => {
    const open = await connect();
    gateway.tell(...outputs("a", "b"));
    const feeds = [open.job("job-1").events(), open.workflow("flow-1").events({ after: "1.1.1" })];
    const seen = /** @type {string[][]} */ ([[], []]);
    const reading = feeds.map(async (feed, index) => {
      for await (const event of feed) seen[index]?.push(event.id);
    });
    await gateway.until(() => seen[0]?.length === 2 && seen[1]?.length === 1);
    gateway.cut();
    gateway.tell(told(3, "output", { chunk: "c" }));
    await gateway.until(() => messages("watch").length === 4);
    gateway.tell(result(4));
    await Promise.all(reading);
    assert.deepEqual(seen, [["1.1.1", "1.1.2", "1.1.3", "1.1.4"], ["1.1.2", "1.1.3", "1.1.4"]]);
    assert.deepEqual(
      messages("watch").map(({ job, workflow, after }) => [job ?? workflow, after]),
      [["job-1", undefined], ["flow-1", "1.1.1"], ["job-1", "1.1.2"], ["flow-1", "1.1.2"]],
    );
  });

  it("of a submission goes on as well", async () => {
    const job = await (await connect()).submit("shop.add");
    const feed = job.events();
    gateway.tell(...outputs("a"));
    assert.equal((await feed.next()).value?.id, "1.1.1");
    gateway.cut();
    gateway.tell(result(2));
    assert.deepEqual(await ids(feed), ["1.1.2"]);
    assert.deepEqual(messages("watch").map(({ job, after }) => [job, after]), [["job-1", "1.1.1"]]);
  });

  it("that is over is not watched again", async () => {
    const open = await connect();
    gateway.hears = ({ socket, message: { type, ref } }) => {
      if (type === "watch") say(socket, { type: "event", ref, ...result(1) }); // and no `done`
      return type === "watch";
    };
    assert.deepEqual(await ids(open.job("job-1").events()), ["1.1.1"]);
    gateway.cut();
    await gateway.until(() => gateway.requests.length === 2);
    await open.ping();
    assert.equal(messages("watch").length, 1);
  });

  it("is unwatched when its reader leaves the loop", async () => {
    const open = await connect();
    gateway.tell(...outputs("a", "b"));
    for await (const _ of open.job("job-1").events()) break;
    await open.ping();
    assert.deepEqual(messages("unwatch").map(({ ref }) => ref), messages("watch").map(({ ref }) => ref));
  });

  it("ends with the reason of a signal, and is unwatched", async () => {
    const open = await connect();
    const stop = new AbortController();
    const next = open.job("job-1").events({ signal: stop.signal }).next();
    stop.abort(new Error("enough"));
    await assert.rejects(next, /enough/);
    await open.ping();
    assert.equal(messages("unwatch").length, 1);
  });

  it("of nobody is a problem", async () => {
    gateway.hears = ({ socket, message }) => {
      if (message.type !== "watch") return false;
      say(socket, { type: "error", ref: message.ref, problem: problem("unknown-job", 404) });
      return true;
    };
    await assert.rejects(ids((await connect()).job("nobody").events()), { code: "unknown-job" });
  });

  it("is asked for again where the gateway cannot tell just now", async (context) => {
    shorten(context, {});
    let busy = 1;
    gateway.hears = ({ socket, message }) => {
      if (message.type !== "watch" || busy-- <= 0) return false;
      say(socket, { type: "error", ref: message.ref, problem: problem("ledger-unavailable", 503) });
      return true;
    };
    gateway.tell(result(1));
    assert.deepEqual(await ids((await connect()).job("job-1").events()), ["1.1.1"]);
  });

  it("is asked for with a new token where the connection's has run out, once", async () => {
    let count = 0;
    const open = await connect({ token: async () => `t${++count}` });
    let good = "t2";
    gateway.hears = ({ socket, message: { type, ref, token } }) => {
      if (type === "ping" || token === good) return false;
      say(socket, { type: "error", ref, problem: problem("unauthorized", 401) });
      return true;
    };
    gateway.tell(...outputs("a"));
    const feed = open.job("job-1").events();
    assert.equal((await feed.next()).value?.id, "1.1.1");
    good = "t3";
    const { socket, message } = /** @type {import("./standin.js").Heard} */ (gateway.heard.at(-1));
    say(socket, { type: "error", ref: message.ref, problem: problem("unauthorized", 401) });
    gateway.tell(result(2));
    assert.deepEqual(await ids(feed), ["1.1.2"]);
    good = "t4";
    await open.job("job-1").cancel();
    good = "t9";
    await assert.rejects(open.job("job-1").cancel(), { status: 401 });
    await assert.rejects(ids(open.job("job-1").events()), { status: 401 });
    assert.equal(count, 6);
  });

  it("of a slow reader is bounded, and misses nothing", async () => {
    const open = await connect();
    const chunks = Array.from({ length: 2500 }, (_, index) => String(index));
    gateway.tell(...outputs(...chunks), result(2501));
    const feed = open.job("job-1").events();
    const first = await feed.next();
    await open.ping();
    assert.equal(messages("unwatch").length, 1);
    const seen = await ids(feed);
    assert.deepEqual([first.value?.id, ...seen], gateway.log.map(({ id }) => id));
    assert.ok(messages("watch").length >= 2);
  });

  it("is cancelled over the connection", async () => {
    const open = await connect();
    await open.job("job-1").cancel();
    assert.deepEqual(messages("cancel").map(({ job }) => job), ["job-1"]);
  });
});
