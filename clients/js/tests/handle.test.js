import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";

import { DisconnectedError, Dure, FailedError, ProblemError, TimeoutError } from "@dure/client";

import { json, outputs, problem, result, Standin } from "./standin.js";

/** @type {Standin} */
let gateway;
/** @type {Dure} */
let dure;

const FAILED = { state: "FAILURE", reason: "error", error: { type: "ValueError", message: "no luck" } };

beforeEach(async () => {
  gateway = await new Standin().start();
  dure = new Dure({ url: gateway.url, pauses: { min: 0.001, max: 0.01 } });
});
afterEach(() => gateway.close());

/** @param {unknown} error */
function isFailure(error) {
  assert.ok(error instanceof FailedError && error instanceof ProblemError);
  assert.deepEqual([error.code, error.state, error.reason], ["job-failed", "FAILURE", "error"]);
  assert.equal(error.error?.message, "no luck");
  return true;
}

function lines() {
  return gateway.requests.map(({ line }) => line);
}

describe("a submission", () => {
  it("is an envelope, with a moment as text and a key as a header", async () => {
    const job = await dure.submit("shop.add", {
      kwargs: { x: 1 },
      eta: new Date(0),
      tags: ["a"],
      idempotency_key: "order-1",
    });
    const [request] = gateway.requests;
    assert.equal(request?.line, "POST /api/v1/tasks/shop.add");
    assert.deepEqual(request?.body, { args: [], kwargs: { x: 1 }, eta: "1970-01-01T00:00:00.000Z", tags: ["a"] });
    assert.equal(request?.headers["idempotency-key"], "order-1");
    assert.equal(request?.headers["content-type"], "application/json");
    assert.equal(job.id, "job-1");
    assert.equal(job.receipt?.state, "ACCEPTED");
  });

  it("that does not fit is a problem which names what is wrong", async () => {
    const errors = [{ loc: ["kwargs", "x"], message: "missing" }];
    gateway.plan.push((_, response) => json(response, 422, problem("invalid", 422, { errors })));
    const error = await dure.submit("shop.add").catch((error) => error);
    assert.ok(error instanceof ProblemError);
    assert.deepEqual(error.problem.errors, errors);
  });

  it("to nobody is a DisconnectedError with its cause", async () => {
    const error = await new Dure({ url: "http://127.0.0.1:1" }).submit("shop.add").catch((error) => error);
    assert.ok(error instanceof DisconnectedError);
    assert.ok(error.cause instanceof TypeError);
  });

  it("with a task's token is watched with the job's own", async () => {
    gateway.plan.push((_, response) => json(response, 202, { id: "job-1", token: "of-the-job" }));
    gateway.tell(result(1));
    const job = await new Dure({ url: gateway.url, token: "of-the-task" }).submit("shop.add");
    await job.result();
    assert.deepEqual(
      gateway.requests.map(({ headers }) => headers.authorization),
      ["Bearer of-the-task", "Bearer of-the-job"],
    );
  });
});

describe("a result", () => {
  it("of what has ended is asked for, and its feed is not read", async () => {
    gateway.tell(...outputs("a"), result(2));
    assert.equal(await dure.job("job-1").result(), 42);
    assert.deepEqual(lines(), ["GET /api/v1/jobs/job-1/result"]);
  });

  it("of what was submitted just now is read from its feed alone", async () => {
    const job = await dure.submit("shop.add");
    const end = job.result();
    await gateway.until(() => gateway.streams.size === 1);
    gateway.tell(...outputs("a"), result(2));
    assert.equal(await end, 42);
    assert.deepEqual(lines().slice(1), ["GET /api/v1/jobs/job-1/events"]);
  });

  it("that is too large for an event is asked for", async () => {
    const job = await dure.submit("shop.add");
    gateway.tell(result(1, { state: "SUCCESS" }));
    gateway.plan.push((request, response) => gateway.stream(request, response));
    gateway.plan.push((_, response) => json(response, 200, { id: "job-1", result: "large" }));
    assert.equal(await job.result(), "large");
  });

  it("of a failed job is an error, however it is learned", async () => {
    const job = await dure.submit("shop.add");
    const end = assert.rejects(job.result(), isFailure);
    await gateway.until(() => gateway.streams.size === 1);
    gateway.tell(result(1, FAILED));
    await end;
    await assert.rejects(dure.job("job-1").result(), isFailure);
    assert.equal(lines().at(-1), "GET /api/v1/jobs/job-1/result");
  });

  it("is waited for no longer than said", async () => {
    const error = await dure.job("job-1").result({ timeout: 0.05 }).catch((error) => error);
    assert.ok(error instanceof TimeoutError);
    assert.match(error.message, /job job-1 has not ended within 0.05 s/);
    await gateway.until(() => gateway.streams.size === 0);
  });

  it("is waited for over a gateway's fall", async () => {
    gateway.plan.push((_, response) => response.destroy());
    gateway.plan.push((_, response) => json(response, 502, problem("away", 502)));
    gateway.tell(result(1));
    assert.equal(await dure.job("job-1").result(), 42);
  });
});

describe("a job", () => {
  it("gives its output chunk by chunk", async () => {
    gateway.tell(...outputs("a", "b"), result(3));
    const chunks = [];
    for await (const chunk of dure.job("job-1").output()) chunks.push(chunk);
    assert.deepEqual(chunks, ["a", "b"]);
  });

  it("that fails ends its output with an error", async () => {
    gateway.tell(...outputs("a"), result(2, FAILED));
    /** @type {unknown[]} */
    const chunks = [];
    await assert.rejects(async () => {
      for await (const chunk of dure.job("job-1").output()) chunks.push(chunk);
    }, isFailure);
    assert.deepEqual(chunks, ["a"]);
  });

  it("is cancelled by its id, quoted", async () => {
    gateway.plan.push((_, response) => json(response, 409, problem("job-ended", 409)));
    await assert.rejects(dure.job("a/../b").cancel(), { code: "job-ended" });
    assert.deepEqual(lines(), ["POST /api/v1/jobs/a%2F..%2Fb/cancel"]);
  });

  it("is looked up", async () => {
    gateway.plan.push((_, response) => json(response, 200, { id: "job-1", state: "RETRY" }));
    assert.equal((await dure.job("job-1").get()).state, "RETRY");
    assert.deepEqual(lines(), ["GET /api/v1/jobs/job-1"]);
  });
});

it("a token is minted with what it opens", async () => {
  gateway.plan.push((_, response) => json(response, 201, { token: "t", expires_at: "2027-01-01T00:00:00+00:00" }));
  assert.equal((await dure.mint({ task: "shop.add", allow: ["submit"], expires_in: 60 })).token, "t");
  assert.deepEqual(gateway.requests[0]?.body, { task: "shop.add", allow: ["submit"], expires_in: 60 });
});
