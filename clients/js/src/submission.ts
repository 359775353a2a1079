/** The form of a submission on the wire, and the handle that its answer makes. */

import type { Channel } from "./channel.js";
import { Job } from "./handle.js";
import type { Http } from "./http.js";
import type { JobRecord, Submission } from "./records.js";

/** `args` and `kwargs` are always said, for the two together make it an envelope. @internal */
export function bodyOf({ args = [], kwargs = {}, ...options }: Omit<Submission, "idempotency_key">): object {
  return { args, kwargs, ...options };
}

/** A job submitted with a token for its task comes with a token of its own. @internal */
export function jobOf<Result, Chunk>(
  receipt: JobRecord & { token?: string },
  http: Http,
  channel: (http: Http) => Channel,
): Job<Result, Chunk> {
  const own = http.with(receipt.token);
  return new Job(receipt.id, own, channel(own), receipt);
}
