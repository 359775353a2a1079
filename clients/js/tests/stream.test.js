import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";

import { Dure, ProblemError } from "@dure/client";

import { framed, json, outputs, problem, result, shorten, Standin, told } from "./standin.js";

/** @type {Standin} */
let gateway;
/** @type {{error: unknown, seconds: number}[]} */
let retries;

const PAUSES = { min: 0.001, max: 0.01 };

beforeEach(async () => {
  gateway = await new Standin().start();
  retries = [];
});
afterEach(() => gateway.close());

/** @param {import("@dure/client").DureOptions} options */
function dure(options = {}) {
  const onRetry = (/** @type {unknown} */ error, /** @type {number} */ seconds) => void retries.push({ error, seconds });
  return new Dure({ url: gateway.url, pauses: PAUSES, onRetry, ...options });
}

/** @param {AsyncIterable<import("@dure/client").FeedEvent>} feed */
async function read(feed) {
  const events = [];
  for await (const event of feed) events.push(event);
  return events;
}

/** @param {AsyncIterable<import("@dure/client").FeedEvent>} feed */
async function ids(feed) {
  return (await read(feed)).map((event) => event.id);
}

function lastEventIds() {
  return gateway.requests.map(({ headers }) => headers["last-event-id"]);
}

describe("a job's feed", () => {
  it("is read from its first event to its result", async () => {
    gateway.tell(told(0, "state", { state: "STARTED", attempt: 1 }), ...outputs("a", "b"), result(3));
    const events = await read(dure().job("job-1").events());
    assert.deepEqual(
      events.map(({ id, kind }) => [id, kind]),
      [["1.1.0", "state"], ["1.1.1", "output"], ["1.1.2", "output"], ["1.1.3", "result"]],
    );
    assert.deepEqual(events[1]?.data, { job: "job-1", at: 1.5, chunk: "a" });
    await gateway.until(() => gateway.streams.size === 0);
    assert.deepEqual(retries, []);
  });

  it("goes on behind the last event when the connection is lost", async () => {
    gateway.tell(...outputs("a", "b"));
    const seen = [];
    for await (const event of dure().job("job-1").events()) {
      seen.push(event.id);
      if (event.id === "1.1.2") {
        gateway.cut();
        gateway.tell(told(3, "output", { chunk: "c" }), result(4));
      }
    }
    assert.deepEqual(seen, ["1.1.1", "1.1.2", "1.1.3", "1.1.4"]);
    assert.deepEqual(lastEventIds(), [undefined, "1.1.2"]);
    assert.equal(retries.length, 1);
  });

  it("goes on when the gateway ends the connection in good order", async () => {
    gateway.plan.push((_, response) => response.end(framed(told(1, "output", { chunk: "a" }))));
    gateway.tell(...outputs("a", "b"), result(3));
    assert.deepEqual(await ids(dure().job("job-1").events()), ["1.1.1", "1.1.2", "1.1.3"]);
    assert.deepEqual(lastEventIds(), [undefined, "1.1.1"]);
  });

  it("gives nothing of an event that came in part only", async () => {
    gateway.plan.push((_, response) => {
      response.write(framed(told(1, "output", { chunk: "a" })));
      response.write('id: 1.1.2\nevent: output\ndata: {"chunk"', () => response.destroy());
    });
    gateway.tell(...outputs("a", "b"), result(3));
    assert.deepEqual(await ids(dure().job("job-1").events()), ["1.1.1", "1.1.2", "1.1.3"]);
  });

  it("is put together from pieces that end anywhere", async () => {
    const bytes = new TextEncoder().encode([told(1, "output", { chunk: "고마워 🌊" }), result(2)].map(framed).join(""));
    const pieces = new ReadableStream({
      start(controller) {
        for (const byte of bytes) controller.enqueue(Uint8Array.of(byte));
        controller.close();
      },
    });
    const [first] = await read(dure({ fetch: async () => new Response(pieces) }).job("job-1").events());
    assert.deepEqual(first?.data, { job: "job-1", at: 1.5, chunk: "고마워 🌊" });
  });

  it("begins behind the id that is given", async () => {
    gateway.tell(...outputs("a", "b"), result(3));
    assert.deepEqual(await ids(dure().job("job-1").events({ after: "1.1.1" })), ["1.1.2", "1.1.3"]);
    assert.deepEqual(lastEventIds(), ["1.1.1"]);
  });

  it("is empty behind its result", async () => {
    gateway.tell(result(1));
    assert.deepEqual(await ids(dure().job("job-1").events({ after: "1.1.1" })), []);
    assert.deepEqual(retries, []);
  });

  it("waits as long as a busy gateway asks, and tries again", async (context) => {
    shorten(context, {});
    gateway.plan.push((_, response) => json(response, 503, problem("busy", 503), { "Retry-After": "1" }));
    gateway.plan.push((_, response) => response.destroy());
    gateway.tell(result(1));
    assert.deepEqual(await ids(dure().job("job-1").events()), ["1.1.1"]);
    assert.equal(retries.length, 2);
    assert.ok(/** @type {ProblemError} */ (retries[0]?.error).retryAfter === 1);
    assert.ok((retries[0]?.seconds ?? 0) >= 1);
    assert.ok((retries[1]?.seconds ?? 1) < 1);
  });

  it("is refused for good where trying again is in vain", async () => {
    await assert.rejects(ids(dure().job("nobody").events()), (error) => {
      assert.ok(error instanceof ProblemError);
      assert.deepEqual([error.code, error.status, error.message], ["unknown-job", 404, "No: it is unknown-job"]);
      return true;
    });
    assert.deepEqual(retries, []);
  });

  it("makes a problem of an error that is no problem document", async () => {
    gateway.plan.push((_, response) => response.writeHead(403, { "Content-Type": "text/html" }).end("<h1>no</h1>"));
    const error = await ids(dure().job("job-1").events()).catch((error) => error);
    assert.ok(error instanceof ProblemError);
    assert.deepEqual(error.problem, { type: "about:blank", title: "Forbidden", status: 403, detail: "<h1>no</h1>" });
  });

  it("closes its connection when the reader leaves the loop", async () => {
    gateway.tell(...outputs("a", "b"));
    for await (const _ of dure().job("job-1").events()) break;
    await gateway.until(() => gateway.streams.size === 0);
  });

  it("ends with the reason of a signal, while it waits for an event", async () => {
    gateway.tell(...outputs("a"));
    const stop = new AbortController();
    const feed = dure().job("job-1").events({ signal: stop.signal });
    assert.equal((await feed.next()).value?.id, "1.1.1");
    const next = feed.next();
    stop.abort(new Error("enough"));
    await assert.rejects(next, /enough/);
    await gateway.until(() => gateway.streams.size === 0);
    assert.deepEqual(retries, []);
  });

  it("ends with the reason of a signal, while it waits for the next attempt", async () => {
    const stop = new AbortController();
    const onRetry = () => void setTimeout(() => stop.abort(new Error("enough")), 20);
    const feed = dure({ url: "http://127.0.0.1:1", pauses: { min: 1000, max: 1000 }, onRetry });
    await assert.rejects(ids(feed.job("job-1").events({ signal: stop.signal })), /enough/);
  });

  it("ends with the reason of a signal, though more has come already", async () => {
    gateway.tell(...outputs("a", "b"), result(3));
    const stop = new AbortController();
    const feed = dure().job("job-1").events({ signal: stop.signal });
    await feed.next();
    stop.abort(new Error("enough"));
    await assert.rejects(feed.next(), /enough/);
  });

  it("pauses for longer and longer, until an event comes", async () => {
    for (let times = 0; times < 3; times++) gateway.plan.push((_, response) => response.destroy());
    gateway.plan.push((_, response) => response.end(framed(told(1, "output", { chunk: "a" }))));
    gateway.tell(...outputs("a"), result(2));
    await ids(dure({ pauses: { min: 0.001, max: 1 } }).job("job-1").events());
    const [first = 0, , third = 0, fourth = 1] = retries.map(({ seconds }) => seconds);
    assert.ok(first <= 0.001 && third >= 0.002 && fourth <= 0.001, `${first} ${third} ${fourth}`);
  });

  it("takes silence for a lost connection", async (context) => {
    shorten(context, { 45: 0.05 });
    gateway.plan.push((_, response) => response.write(framed(told(1, "output", { chunk: "a" }))));
    gateway.tell(...outputs("a"), result(2));
    assert.deepEqual(await ids(dure().job("job-1").events()), ["1.1.1", "1.1.2"]);
    assert.match(String(retries[0]?.error), /nothing was heard for 45 s/);
  });

  it("takes a gateway that does not answer for a lost connection", async (context) => {
    shorten(context, { 45: 0.05 });
    gateway.plan.push(() => {});
    gateway.tell(result(1));
    assert.deepEqual(await ids(dure().job("job-1").events()), ["1.1.1"]);
  });

  it("does not take a slow reader for a silent gateway", async (context) => {
    shorten(context, { 45: 0.1 });
    gateway.tell(...outputs("a"));
    for await (const { kind } of dure().job("job-1").events()) {
      if (kind === "result") break;
      await new Promise((resolve) => setTimeout(resolve, 200));
      gateway.tell(result(2));
    }
    assert.deepEqual(retries, []);
  });

  it("shows a token that is asked for anew for each connection", async () => {
    let count = 0;
    gateway.plan.push((_, response) => response.destroy());
    gateway.tell(result(1));
    await ids(dure({ token: async () => `t${++count}` }).job("job-1").events());
    assert.deepEqual(
      gateway.requests.map(({ headers }) => headers.authorization),
      ["Bearer t1", "Bearer t2"],
    );
  });

  it("shows a new token once where one is refused", async () => {
    let count = 0;
    const token = () => `t${++count}`;
    gateway.plan.push((_, response) => json(response, 401, problem("invalid-token", 401)));
    gateway.tell(result(1));
    assert.deepEqual(await ids(dure({ token }).job("job-1").events()), ["1.1.1"]);
    for (let times = 0; times < 3; times++) {
      gateway.plan.push((_, response) => json(response, 401, problem("invalid-token", 401)));
    }
    await assert.rejects(ids(dure({ token }).job("job-1").events()), { code: "invalid-token" });
    await assert.rejects(ids(dure({ token: "t" }).job("job-1").events()), { code: "invalid-token" });
    assert.equal(count, 4);
    assert.deepEqual(retries, []);
  });

  it("fails where no token is to be had", async () => {
    const token = () => {
      throw new Error("signed out");
    };
    await assert.rejects(ids(dure({ token }).job("job-1").events()), /signed out/);
  });
});

describe("other feeds", () => {
  it("of many jobs do not end with a result", async () => {
    gateway.plan.push((request, response) => gateway.stream(request, response));
    gateway.tell(result(1), told(2, "output", { chunk: "b" }));
    const seen = [];
    for await (const event of dure().events({ task: "shop.add", tag: "a b" })) {
      seen.push(event.id);
      if (seen.length === 2) break;
    }
    assert.deepEqual(seen, ["1.1.1", "1.1.2"]);
    assert.equal(gateway.requests[0]?.line, "GET /api/v1/events?task=shop.add&tag=a+b");
  });

  it("of a workflow are asked for at its own address", async () => {
    gateway.plan.push((request, response) => gateway.stream(request, response));
    gateway.tell(told(1, "workflow", { state: "STARTED", counts: {}, progress: { done: 0, total: 2 } }), result(2));
    assert.deepEqual(await ids(dure({ url: `${gateway.url}/dure` }).workflow("f/1").events()), ["1.1.1", "1.1.2"]);
    assert.equal(gateway.requests[0]?.line, "GET /dure/api/v1/workflows/f%2F1/events");
  });
});
