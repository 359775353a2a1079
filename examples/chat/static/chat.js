import { Line } from "./line.js";
import { show } from "./text.js";

const TASK = "chat.complete";
const MOST = 40; // messages that go along with a question

const $ = (id) => document.getElementById(id);
const talk = $("talk"), messages = $("messages"), prompt = $("prompt");

// The conversation is this tab's own. An answer that is still being made is kept by its job's id: after a reload the
// feed tells all of it again.
const kept = JSON.parse(sessionStorage.getItem("chat") ?? "null") ?? { said: [], job: null };
let answering = null; // what is being answered: {ref, view, text, …}

const line = new Line(async () => {
  const response = await fetch("access", { method: "POST" });
  if (!response.ok) throw new Error(`answered with ${response.status}`);
  const access = await response.json();
  $("model").textContent = access.model;
  return access;
});

line.addEventListener("state", ({ detail }) => {
  $("line").dataset.state = detail;
  $("line").textContent = { open: "live", connecting: "connecting", waiting: "reconnecting" }[detail];
});

// Asking

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask(prompt.value.trim());
});

prompt.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("ask").requestSubmit();
});

prompt.addEventListener("input", buttons);
addEventListener("keydown", (event) => event.key === "Escape" && stop());
$("stop").addEventListener("click", stop);
$("welcome").addEventListener("click", ({ target }) => target.matches("button") && ask(target.textContent));

$("anew").addEventListener("click", () => {
  stop();
  answering = null;
  Object.assign(kept, { said: [], job: null });
  keep();
  messages.replaceChildren();
  buttons();
  prompt.focus();
});

function ask(text) {
  if (!text || answering) return;
  prompt.value = "";
  say("user", text);
  answer();
}

function say(role, content) {
  kept.said.push({ role, content });
  keep();
  show(content, add(role).querySelector(".text"));
  talk.scrollTop = talk.scrollHeight;
}

/** Have the last message answered. */
function answer() {
  begin();
  answering.ref = line.submit(TASK, [history()], crypto.randomUUID(), feed(answering));
}

/** What the model is told: the last messages, from one of the user's on. */
function history() {
  const last = kept.said.slice(-MOST);
  return last.slice(last.findIndex(({ role }) => role === "user"));
}

function stop() {
  if (!answering || answering.stopping) return;
  answering.stopping = true;
  note(answering.view, "Stopping …");
  line.cancel(answering.ref);
  buttons();
}

// An answer, event by event

function begin() {
  answering = { view: add("assistant"), text: "", pieces: 0, attempt: 0, asked: performance.now(), first: null, lost: false };
  answering.view.dataset.state = "waiting";
  buttons();
  talk.scrollTop = talk.scrollHeight;
}

function feed(one) {
  return {
    accepted: (job) => {
      if (one !== answering) return;
      kept.job = { id: job.id, token: job.token };
      one.job = job.id;
      keep();
    },
    event: (kind, data) => one === answering && hear[kind]?.(one, data),
    refused: (problem) => one === answering && end(one, "failed", problem.detail ?? problem.title),
  };
}

const hear = {
  state(one, { state, attempt }) {
    if (state !== "STARTED" || attempt <= one.attempt) return;
    // A second attempt, after a worker was lost, tells all from its own beginning.
    if (one.attempt) Object.assign(one, { text: "", pieces: 0 });
    one.attempt = attempt;
    draw(one);
  },
  output(one, { chunk }) {
    one.first ??= performance.now();
    one.text += chunk;
    one.pieces += 1;
    if (!one.stopping) one.view.dataset.state = "streaming";
    draw(one);
  },
  dropped(one) {
    one.lost = true; // the result has the whole
  },
  result(one, { state, result, error, reason }) {
    if (state === "SUCCESS") {
      if (one.lost) one.text = result.text;
      end(one, "done", result.why_it_ended === "length" ? "This is as long as an answer may be." : "");
    } else if (state === "REVOKED") {
      end(one, "stopped", "Stopped.");
    } else {
      end(one, "failed", error?.message ?? `The task failed: ${reason}.`);
    }
  },
};

function end(one, state, text) {
  one.view.dataset.state = state;
  draw.now(one);
  note(one.view, text, state === "failed" ? "Try again" : null, () => {
    one.view.remove();
    if (kept.said.at(-1)?.role === "assistant") kept.said.pop();
    answer();
  });
  const facts = [];
  if (one.first && one.asked !== null) facts.push(`first word after ${Math.round(one.first - one.asked)} ms`);
  if (one.pieces) facts.push(one.pieces === 1 ? "1 piece" : `${one.pieces} pieces`);
  if (one.job) facts.push(`job ${one.job}`);
  Object.assign(one.view.querySelector(".facts"), { textContent: facts.join(" · "), hidden: !facts.length });
  if (one.text) kept.said.push({ role: "assistant", content: one.text });
  kept.job = null;
  keep();
  answering = null;
  scroll();
  buttons();
}

// The page

function add(role) {
  const view = $("message").content.firstElementChild.cloneNode(true);
  view.dataset.role = role;
  view.querySelector("h3").textContent = role === "user" ? "You" : "The model";
  messages.append(view);
  return view;
}

/** At most once a frame, however many pieces come. */
function draw(one) {
  if (one.drawing) return;
  one.drawing = requestAnimationFrame(() => draw.now(one));
}

draw.now = (one) => {
  cancelAnimationFrame(one.drawing);
  one.drawing = null;
  const follows = talk.scrollHeight - talk.scrollTop - talk.clientHeight < 80;
  show(one.text, one.view.querySelector(".text"));
  if (follows) talk.scrollTop = talk.scrollHeight;
};

function scroll() {
  if (talk.scrollHeight - talk.scrollTop - talk.clientHeight < 160) talk.scrollTop = talk.scrollHeight;
}

function note(view, text, action, act) {
  const place = view.querySelector(".note");
  place.replaceChildren(text);
  place.hidden = !text;
  if (!action) return;
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: action });
  button.addEventListener("click", () => !answering && act());
  place.append(button);
}

function buttons() {
  $("welcome").hidden = kept.said.length > 0;
  $("anew").hidden = kept.said.length === 0;
  $("send").hidden = answering !== null;
  $("stop").hidden = answering === null;
  $("stop").disabled = answering?.stopping === true;
  $("send").disabled = !prompt.value.trim();
}

function keep() {
  sessionStorage.setItem("chat", JSON.stringify(kept));
}

// After a reload

for (const { role, content } of kept.said) {
  const view = add(role);
  if (role === "assistant") view.dataset.state = "done";
  show(content, view.querySelector(".text"));
}
if (kept.job) {
  begin();
  Object.assign(answering, { job: kept.job.id, asked: null });
  answering.ref = line.watch(kept.job.id, kept.job.token, feed(answering));
}
buttons();
talk.scrollTop = talk.scrollHeight;
