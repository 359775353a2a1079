/** How feeds reach a handle: over one HTTP request each, or all over one WebSocket. */

import type { FeedEvent } from "./events.js";

export interface WatchOptions {
  /** The id of the last event that is known already; what is behind it follows. */
  after?: string | undefined;
  /** Ends the feed: its reader gets the signal's reason as an error. */
  signal?: AbortSignal | undefined;
}

/** What a feed is about, and the token that opens it, if it has one of its own. @internal */
export type Subject = ({ readonly job: string } | { readonly workflow: string }) & { readonly token?: string };

/** @internal */
export interface Channel {
  watch(subject: Subject, options: WatchOptions): AsyncIterableIterator<FeedEvent>;
  cancel(subject: Subject): Promise<void>;
}

/** @internal */
export function pathOf(subject: Subject): [string, string] {
  return "job" in subject ? ["jobs", subject.job] : ["workflows", subject.workflow];
}
