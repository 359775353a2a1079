// One WebSocket to a gateway of Dure that mends itself: what was asked is asked again on the next one, and what is
// watched goes on behind the last event that came.

const SHORTEST = 250, LONGEST = 5000; // milliseconds between two tries
const UNAUTHORISED = 4401;

export class Line extends EventTarget {
  #ask;
  #access = null;
  #socket = null;
  #tries = 0;
  #number = 0;
  #open = new Map(); // by ref: what is not over yet
  #timer = null;

  /** `access()` gives `{gateways, token, expires_in}`; it is asked again when the token's time is nearly over. */
  constructor(access) {
    super();
    this.#ask = access;
    this.#connect();
    addEventListener("online", () => this.#later(0));
  }

  /** Submit a job and watch it; `key` makes it one job however often it is sent. */
  submit(task, args, key, on) {
    return this.#begin({ on, message: { type: "submit", task, args, idempotency_key: key, watch: true } });
  }

  /** Watch a job from its beginning; its receipt's token opens it. */
  watch(job, token, on) {
    return this.#begin({ on, job, token });
  }

  cancel(ref) {
    const one = this.#open.get(ref);
    if (!one) return;
    one.cancelled = true;
    if (one.job) this.#send({ type: "cancel", ref: `cancel ${ref}`, job: one.job, token: one.token });
  }

  #begin(one) {
    const ref = String(++this.#number);
    this.#open.set(ref, one);
    this.#say(ref, one);
    return ref;
  }

  async #say(ref, one) {
    if (one.job) {
      this.#send({ type: "watch", ref, job: one.job, token: one.token, after: one.after });
      if (one.cancelled) this.cancel(ref);
      return;
    }
    const socket = this.#socket;
    try {
      const { token } = await this.#fresh();
      if (socket === this.#socket) this.#send({ ...one.message, ref, token });
    } catch {
      if (socket === this.#socket) socket?.close(); // and all over again
    }
  }

  #send(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  async #fresh() {
    if (!this.#access || Date.now() > this.#access.until) {
      const access = await this.#ask();
      this.#access = { ...access, until: Date.now() + access.expires_in * 500 };
    }
    return this.#access;
  }

  async #connect() {
    this.#timer = null;
    this.#tell("connecting");
    let access;
    try {
      access = await this.#fresh();
    } catch {
      this.#later();
      return;
    }
    const url = access.gateways[this.#tries % access.gateways.length];
    const socket = (this.#socket = new WebSocket(url, ["dure.v1", `bearer.${access.token}`]));
    socket.onopen = () => {
      this.#tell("open");
      for (const [ref, one] of this.#open) this.#say(ref, one);
    };
    socket.onmessage = ({ data }) => {
      this.#tries = 0;
      this.#hear(JSON.parse(data));
    };
    socket.onclose = ({ code }) => {
      if (code === UNAUTHORISED) this.#access = null;
      this.#socket = null;
      this.#later();
    };
  }

  #hear(message) {
    const one = this.#open.get(message.ref);
    if (!one) return;
    if (message.type === "accepted") {
      one.job = message.job.id;
      one.token = message.job.token;
      one.on.accepted?.(message.job);
      if (one.cancelled) this.cancel(message.ref);
    } else if (message.type === "event") {
      one.after = message.id;
      one.ended = message.event === "result";
      one.on.event(message.event, message.data);
    } else if (message.type === "done") {
      if (one.ended) this.#open.delete(message.ref);
      else setTimeout(() => this.#say(message.ref, one), LONGEST); // the feed broke off
    } else if (message.type === "error" && message.problem.status === 503) {
      setTimeout(() => this.#say(message.ref, one), LONGEST); // busy
    } else if (message.type === "error") {
      this.#open.delete(message.ref);
      one.on.refused(message.problem);
    }
  }

  #later(wait = Math.min(LONGEST, SHORTEST * 2 ** this.#tries) * (0.5 + Math.random() / 2)) {
    if (this.#socket) return;
    this.#tries += 1;
    this.#tell("waiting");
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#connect(), wait);
  }

  #tell(state) {
    this.dispatchEvent(new CustomEvent("state", { detail: state }));
  }
}
