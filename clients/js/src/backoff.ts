/** Pauses between attempts, in seconds: they double, and half of each is chance, so that many clients do not come at once. */

export interface Pauses {
  /** The first pause. */
  min?: number;
  /** The longest. */
  max?: number;
}

/** Called before each pause, with what went wrong and how long the pause is. */
export type OnRetry = (error: unknown, seconds: number) => void;

export class Backoff {
  #failures = 0;
  readonly #min: number;
  readonly #max: number;
  readonly #onRetry: OnRetry | undefined;

  constructor({ min = 0.5, max = 30 }: Pauses = {}, onRetry?: OnRetry) {
    this.#min = min;
    this.#max = max;
    this.#onRetry = onRetry;
  }

  reset(): void {
    this.#failures = 0;
  }

  /** `atLeast` is what the other side asked for; it is never shortened. */
  next(atLeast = 0): number {
    const pause = Math.min(this.#max, this.#min * 2 ** this.#failures++);
    return atLeast + pause * (0.5 + Math.random() / 2);
  }

  /** Waits, less long if the browser comes back online. */
  async wait(error: unknown, signal: AbortSignal, atLeast?: number): Promise<void> {
    const seconds = this.next(atLeast);
    this.#onRetry?.(error, seconds);
    await sleep(seconds, signal, atLeast === undefined);
  }
}

/** Ends early when the signal aborts. */
async function sleep(seconds: number, signal: AbortSignal, wakes: boolean): Promise<void> {
  if (signal.aborted) return;
  await new Promise<void>((resolve) => {
    const online = wakes && typeof globalThis.addEventListener === "function";
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      if (online) globalThis.removeEventListener("online", done);
      resolve();
    };
    const timer = setTimeout(done, seconds * 1000);
    signal.addEventListener("abort", done);
    if (online) globalThis.addEventListener("online", done);
  });
}
