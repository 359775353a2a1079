/** One gateway's HTTP interface: where it is, how a caller shows who it is, and what becomes of an error. */

import type { OnRetry, Pauses } from "./backoff.js";
import { answerError, DisconnectedError } from "./errors.js";

/** A token, or what gives a valid one each time it is asked. */
export type TokenSource = string | (() => string | Promise<string>);

export interface Query {
  readonly [name: string]: string | undefined;
}

export interface Request {
  method?: string;
  query?: Query | undefined;
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal | undefined;
}

export interface HttpOptions {
  url?: string | URL;
  token?: TokenSource | undefined;
  fetch?: typeof fetch;
  pauses?: Pauses;
  onRetry?: OnRetry;
}

/** @internal */
export class Http {
  readonly #options: HttpOptions;
  readonly #base: URL;
  readonly #fetch: typeof fetch;

  constructor(options: HttpOptions) {
    this.#options = options;
    this.#base = new URL(options.url ?? "/", globalThis.location?.href);
    if (!this.#base.pathname.endsWith("/")) this.#base.pathname += "/";
    this.#fetch = options.fetch ?? ((input, init) => globalThis.fetch(input, init));
  }

  get pauses(): Pauses | undefined {
    return this.#options.pauses;
  }

  get onRetry(): OnRetry | undefined {
    return this.#options.onRetry;
  }

  with(token: TokenSource | undefined): Http {
    return token === undefined ? this : new Http({ ...this.#options, token });
  }

  async token(): Promise<string | undefined> {
    const { token } = this.#options;
    return typeof token === "function" ? token() : token;
  }

  get canRenew(): boolean {
    return typeof this.#options.token === "function";
  }

  /** `path` is below `/api/v1`, each of its parts to be quoted. */
  address(path: readonly string[], query: Query = {}): URL {
    const url = new URL(`api/v1/${path.map(encodeURIComponent).join("/")}`, this.#base);
    for (const [name, value] of Object.entries(query)) if (value !== undefined) url.searchParams.set(name, value);
    return url;
  }

  /**
   * An answer that is no error; else a ProblemError, or a DisconnectedError if there was none. Where a token is refused
   * whose time may be over, a new one is shown once.
   */
  async ask(path: readonly string[], request: Request = {}): Promise<Response> {
    let response = await this.#send(path, request);
    if (response.status === 401 && this.canRenew) {
      await response.body?.cancel();
      response = await this.#send(path, request);
    }
    if (!response.ok) throw await answerError(response);
    return response;
  }

  async #send(
    path: readonly string[],
    { method = "GET", query, body, headers, signal }: Request,
  ): Promise<Response> {
    const all = new Headers(headers);
    const token = await this.token();
    if (token) all.set("Authorization", `Bearer ${token}`);
    if (body !== undefined) all.set("Content-Type", "application/json");
    const url = this.address(path, query);
    try {
      return await this.#fetch(url, {
        method,
        headers: all,
        cache: "no-store",
        signal: signal ?? null,
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      throw new DisconnectedError(`no answer from ${url.origin}`, { cause: error });
    }
  }

  async json<T>(path: readonly string[], request?: Request): Promise<T> {
    return (await (await this.ask(path, request)).json()) as T;
  }
}
