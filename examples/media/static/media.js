// One upload, one workflow, one EventSource: what is shown is what the events say.

const $ = (id) => document.getElementById(id);
const REASONS = { error: "failed", "upstream-failed": "not begun", revoked: "not begun", terminated: "stopped" };
const DONE = '[data-state="SUCCESS"]:not([data-node="upload"])';
const step = (node) => document.querySelector(`[data-node="${node}"]`);

const limits = await (await fetch("limits")).json();
$("limit").textContent = `, up to ${bytes(limits.largest)}`;

// Choosing a file

$("file").addEventListener("change", () => $("file").files[0] && begin($("file").files[0]));
$("drop").addEventListener("submit", (event) => event.preventDefault());
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop" && !$("begin").hidden && event.dataTransfer.files[0]) begin(event.dataTransfer.files[0]);
  });
}

$("another").addEventListener("click", () => location.assign(location.pathname));
$("cancel").addEventListener("click", () => cancel());

let cancel = () => {};

async function begin(file) {
  $("refused").hidden = true;
  if (file.size > limits.largest) {
    refuse(`The file has ${bytes(file.size)}, and may have ${bytes(limits.largest)}.`);
    return;
  }
  work(file.name);
  try {
    const { workflow, title } = await upload(file);
    sessionStorage.setItem(workflow, title);
    history.replaceState(null, "", `#${workflow}`);
    follow(workflow, title);
  } catch (problem) {
    $("work").hidden = true;
    refuse(problem.message);
  }
}

function refuse(text) {
  $("begin").hidden = false;
  $("file").value = "";
  Object.assign($("refused"), { textContent: text, hidden: !text });
}

/** XMLHttpRequest, since fetch tells nothing of how far an upload is. */
function upload(file) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `uploads?name=${encodeURIComponent(file.name)}`);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.responseType = "json";
    request.upload.onprogress = ({ loaded, total }) => far("upload", loaded, total, `${bytes(loaded)} of ${bytes(total)}`);
    request.onload = () => {
      if (request.status === 202) {
        mark("upload", "SUCCESS", bytes(file.size));
        far("upload", 1, 1);
        resolve(request.response);
      } else {
        reject(new Error(request.response?.detail ?? `The upload was answered with ${request.status}.`));
      }
    };
    request.onerror = () => reject(new Error("The upload broke off."));
    request.onabort = () => reject(new Error(""));
    cancel = () => request.abort();
    mark("upload", "STARTED", "");
    request.send(file);
  });
}

// Following the workflow

/** Opens the feed, and opens it again behind the last event when the token's time is over. */
async function follow(workflow, title) {
  let after = null;
  work(title);
  $("cancel").disabled = false;
  mark("upload", "SUCCESS");
  far("upload", 1, 1);

  async function open() {
    const response = await fetch(`uploads/${workflow}`);
    if (response.status === 404) {
      history.replaceState(null, "", location.pathname);
      $("work").hidden = true;
      refuse("There is no such video any more.");
      return;
    }
    if (!response.ok) throw new Error(`answered with ${response.status}`);
    const { events, token } = await response.json();
    cancel = async () => {
      $("cancel").disabled = true;
      $("status").textContent = "Cancelling …";
      await fetch(`${events}/cancel`, { method: "POST", headers: { Authorization: `Bearer ${token}` } });
    };
    const query = new URLSearchParams({ token, ...(after && { after }) });
    const source = new EventSource(`${events}/events?${query}`);
    source.onopen = () => online("live");
    source.onerror = () => {
      online("waiting");
      if (source.readyState === EventSource.CLOSED) setTimeout(again, 1000);
    };
    for (const kind of Object.keys(hear)) {
      source.addEventListener(kind, ({ data, lastEventId }) => {
        after = lastEventId;
        hear[kind](JSON.parse(data));
        if (kind === "result") {
          source.close();
          $("line").hidden = true;
        }
      });
    }
  }

  const again = () => open().catch(() => setTimeout(again, 2000));
  await again();
}

const hear = {
  state({ node, state, reason }) {
    if (!step(node)) return;
    mark(node, state, state === "STARTED" ? "" : reason ? (REASONS[reason] ?? reason) : undefined);
    if (state === "SUCCESS") far(node, 1, 1);
    if (!$("cancel").disabled) $("status").textContent = `${$("steps").querySelectorAll(DONE).length} of 5 tasks done`;
  },
  progress({ node, current, total, speed }) {
    far(node, current, total, `${clock(current)} of ${clock(total)}${speed ? ` · ${speed}` : ""}`);
  },
  result({ state, result, error, reason }) {
    $("cancel").hidden = true;
    $("another").hidden = false;
    $("status").textContent = { SUCCESS: "Done", REVOKED: "Cancelled" }[state] ?? "";
    if (state === "SUCCESS") present(result);
    else if (state === "FAILURE") Object.assign($("failed"), { hidden: false, textContent: error?.message ?? `It failed: ${reason}` });
  },
};

// The page

function work(title) {
  $("begin").hidden = true;
  $("work").hidden = false;
  $("title").textContent = title;
  $("status").textContent = "";
}

function mark(node, state, told) {
  step(node).dataset.state = state;
  if (told !== undefined) step(node).querySelector(".told").textContent = told ?? "";
}

function far(node, current, total, told) {
  const place = step(node);
  const bar = place?.querySelector("progress");
  if (bar && total) bar.value = current / total;
  if (place && told) place.querySelector(".told").textContent = told;
}

function online(state) {
  $("line").hidden = false;
  $("line").dataset.state = state;
  $("line").textContent = state === "live" ? "live" : "reconnecting";
}

function present({ title, source, large, small, thumbnail }) {
  $("title").textContent = title;
  mark("upload", "SUCCESS", bytes(source.bytes));
  mark("probe", "SUCCESS", `${source.width}×${source.height} · ${clock(source.seconds)}`);
  for (const [node, made] of Object.entries({ large, small, thumbnail })) {
    mark(node, "SUCCESS", `${made.width}×${made.height} · ${bytes(made.bytes)}`);
  }
  const player = $("player");
  player.poster = `files/${thumbnail.file}`;
  player.src = `files/${large.file}`;
  player.style.aspectRatio = `${large.width} / ${large.height}`;
  const files = [["Large", large], ["Small", small], ["Picture", thumbnail]].map(([name, made]) => {
    const link = document.createElement("a");
    link.href = `files/${made.file}?title=${encodeURIComponent(title)}`;
    link.download = "";
    link.append(element("b", name), element("span", `${made.width}×${made.height}`), element("span", bytes(made.bytes)));
    const item = document.createElement("li");
    item.append(link);
    return item;
  });
  $("files").replaceChildren(...files);
  const facts = {
    Plays: clock(source.seconds),
    "It was": `${source.width}×${source.height}, ${source.codec}${source.sound ? ` and ${source.sound}` : ", without sound"}`,
    Saved: `${Math.round(100 * (1 - small.bytes / source.bytes))} % in the small one`,
  };
  if (small.bytes >= source.bytes) delete facts.Saved;
  $("facts").replaceChildren(...Object.entries(facts).flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
  $("made").hidden = false;
}

function element(name, text) {
  return Object.assign(document.createElement(name), { textContent: text });
}

function bytes(count) {
  if (count < 1000) return `${count} bytes`;
  const unit = count < 1e6 ? ["kB", 1e3] : count < 1e9 ? ["MB", 1e6] : ["GB", 1e9];
  const value = count / unit[1];
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${unit[0]}`;
}

function clock(seconds) {
  const whole = Math.floor(seconds ?? 0);
  const tenths = whole < 60 ? `.${Math.floor(((seconds ?? 0) - whole) * 10)}` : "";
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}${tenths}`;
}

// After a reload

const shown = location.hash.slice(1);
if (shown) follow(shown, sessionStorage.getItem(shown) ?? "Video");
