"""A page that has the built client, and a way to run a piece of JavaScript in it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from playwright.sync_api import Page

CLIENT = Path(__file__).parents[2] / "clients" / "js"
DEADLINE = 60

_PAGE = """<!doctype html><title>A page</title>
<script type="importmap">{"imports": {"@dure/client": "/dist/index.js"}}</script>
"""
# A module of its own, as a page's script would be; `await` stands for what the test waits for.
_RUN = """async ([code, given, seconds]) => {
  globalThis.given = given;
  const address = URL.createObjectURL(new Blob([code], {type: "text/javascript"}));
  const late = new Promise((_, reject) => setTimeout(reject, seconds * 1000, new Error(`not within ${seconds} s`)));
  return (await Promise.race([import(address), late])).default;
}"""
_HEAD = """
import * as client from "@dure/client";
const { Dure, DisconnectedError, FailedError, ProblemError, TimeoutError } = client;
const { url, token, ...more } = given;
const dure = new Dure({ url, token, pauses: { min: 0.05, max: 0.5 } });

// A feed may tell an end a moment before the ledger has it. This is the record with the end:
const ended = async (job) => {
  for (;;) {
    const record = await job.get();
    if (["SUCCESS", "FAILURE", "REVOKED"].includes(record.state)) return record;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
};
"""


class _Handler(SimpleHTTPRequestHandler):
    answers: dict[str, bytes]

    def do_GET(self) -> None:
        answer = self.answers.get(self.path)
        if answer is None:
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if self.path == "/" else "text/plain")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        return None

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def served() -> Iterator[tuple[str, dict[str, bytes]]]:
    """The page's origin, and what it answers besides."""
    answers = {"/": _PAGE.encode()}
    handler = type("Handler", (_Handler,), {"answers": answers})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(CLIENT))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", answers
        finally:
            server.shutdown()


def module(page: Page, code: str, **given: Any) -> Any:
    """Runs a whole module, and gives what it exports as default."""
    return page.evaluate(_RUN, [code, given, DEADLINE])


def run(page: Page, body: str, **given: Any) -> Any:
    """What a function of that body returns. `dure` is a client of the gateway at `url`; `more` has the other names."""
    function = f"export default await (async () => {{{textwrap.dedent(body)}}})();"
    return module(page, _HEAD + function, **given)
