"""The chat in a real browser: page, worker, the stand-in for a model, and two gateways, of which one is killed."""

import json
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, WebSocket, expect

from tests.acceptance.cli_stack import Up, until
from tests.services.chromium import chromium
from tests.services.modes import servers_of
from tests.services.service import free_port

DEADLINE = 60
KEY = "k-of-the-chat-server-0001"

expect.set_options(timeout=DEADLINE * 1000)


@dataclass
class Chat:
    """What runs, and what goes over the page's WebSockets: `heard` is (port of the gateway, message)."""

    stack: Up
    page: Page
    address: str
    model: httpx.Client
    heard: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    opened: list[int] = field(default_factory=list)

    def open(self) -> None:
        self.page.on("websocket", self._listen)
        self.page.goto(self.address)
        expect(self.page.locator("#line")).to_have_attribute("data-state", "open")

    def _listen(self, socket: WebSocket) -> None:
        found = re.search(r":(\d+)/", socket.url)
        assert found
        port = int(found[1])
        self.opened.append(port)
        socket.on("framereceived", lambda frame: self.heard.append((port, json.loads(frame))))

    def ask(self, prompt: str) -> Locator:
        """The answer's place."""
        self.page.fill("#prompt", prompt)
        self.page.keyboard.press("Enter")
        return self.answer

    @property
    def answer(self) -> Locator:
        return self.page.locator("article[data-role=assistant]").last

    def shows(self, text: str) -> None:
        expect(self.answer.locator(".text")).to_have_text(text)

    def shows_more_than(self, number: int) -> None:
        expect(self.answer.locator(".text")).to_contain_text(f" {number} ")

    def is_(self, state: str) -> None:
        expect(self.answer).to_have_attribute("data-state", state)

    def pieces(self) -> list[str]:
        """The output, as it came over all sockets."""
        return [message["data"]["chunk"] for _, message in self.heard if message.get("event") == "output"]

    def said(self, prompt: str) -> dict[str, Any]:
        """How far the stand-in came with the last of these."""
        return [told for told in self.model.get("/answers").json() if told["prompt"] == prompt][-1]  # type: ignore[no-any-return]

    def job(self) -> dict[str, Any]:
        found = re.search(r"job (\S+)", self.answer.locator(".facts").inner_text())
        assert found
        headers = {"Authorization": f"Bearer {KEY}"}
        answer = httpx.get(f"{self.stack.url}/api/v1/jobs/{found[1]}", headers=headers, timeout=DEADLINE)
        return answer.json()  # type: ignore[no-any-return]


def count(to: int) -> str:
    return " ".join(map(str, range(1, to + 1)))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module", params=["embedded", "production"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Up, int, int]]:
    """The stack, and the ports of the page and of the stand-in. `dure up` runs one gateway; another is beside it."""
    site, model, other = free_port(), free_port(), free_port()
    beside = [
        f"dure serve --port {other}",
        f"uvicorn examples.chat.api:app --port {site}",
        f"uvicorn examples.chat.standin:app --port {model}",
    ]
    environment = {
        "DURE_API_KEYS": KEY,
        "DURE_CORS_ORIGINS": f"http://127.0.0.1:{site}",
        "CHAT_GATEWAY_KEY": KEY,
        "CHAT_BASE_URL": f"http://127.0.0.1:{model}/v1",
        "STANDIN_SECONDS": "0.01",
    }
    home = tmp_path_factory.mktemp("chat")
    with_ = [part for command in beside for part in ("--with", command)]
    up = Up(home, "-A", "examples.chat.tasks:app", *with_, environment=environment | servers_of(request))
    up.environment["CHAT_GATEWAYS"] = f"{up.url},http://127.0.0.1:{other}"
    with up:
        up.tells("Uvicorn running", times=2)
        until(lambda: _answers(f"http://127.0.0.1:{other}/healthz"), lambda: up.output, DEADLINE)
        until(lambda: _answers(f"http://127.0.0.1:{site}/access", "POST"), lambda: up.output, DEADLINE)
        yield up, site, model


def _answers(url: str, method: str = "GET") -> bool:
    try:
        return httpx.request(method, url, timeout=DEADLINE).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
def chat(running: tuple[Up, int, int], browser: Browser) -> Iterator[Chat]:
    up, site, model = running
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{model}", timeout=DEADLINE) as client,
        browser.new_context() as context,
    ):
        context.set_default_timeout(DEADLINE * 1000)
        page = context.new_page()
        chat = Chat(up, page, f"http://127.0.0.1:{site}", client)
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        chat.open()
        yield chat
        assert errors == []


def test_an_answer_is_shown_while_it_is_made(chat: Chat) -> None:
    chat.ask("count to 30, hold at 12")
    chat.shows(count(12))
    chat.is_("streaming")
    chat.model.post("/let-go")
    chat.is_("done")
    chat.shows(count(30))
    assert chat.pieces() == [f"{n} " for n in range(1, 31)]


def test_the_model_is_told_what_was_said_before(chat: Chat) -> None:
    chat.ask("count to 2")
    chat.is_("done")
    chat.ask("count to 3")
    chat.shows(count(3))
    assert [message["role"] for message in chat.job()["args"][0]] == ["user", "assistant", "user"]


def test_stop_ends_the_task_and_its_connection_to_the_model(chat: Chat) -> None:
    prompt = "count to 9000"
    chat.ask(prompt)
    chat.shows_more_than(20)
    chat.page.click("#stop")
    chat.is_("stopped")
    until(lambda: chat.said(prompt)["ended"] is not None, lambda: str(chat.said(prompt)), DEADLINE)
    assert chat.said(prompt)["ended"] == "left"
    assert chat.said(prompt)["sent"] < 9000
    until(lambda: chat.job()["state"] not in ("STARTED", "QUEUED"), lambda: str(chat.job()), DEADLINE)
    assert (chat.job()["state"], chat.job()["reason"]) == ("REVOKED", "terminated")
    chat.ask("count to 3")
    chat.shows(count(3))


@pytest.mark.parametrize(
    ("how", "told"),
    [("fail", "the model is overloaded"), ("break off", "Connection error|broke off")],
    ids=["said", "cut off"],
)
def test_a_model_that_fails_in_the_middle_is_told_of_with_what_came(how: str, told: str, chat: Chat) -> None:
    chat.ask(f"count to 20, {how} at 5")
    chat.is_("failed")
    chat.shows(count(5))
    expect(chat.answer.locator(".note")).to_contain_text(re.compile(told))
    chat.answer.get_by_role("button", name="Try again").click()
    expect(chat.page.locator("article[data-role=assistant]")).to_have_count(1)
    chat.is_("failed")
    assert len([one for one in chat.model.get("/answers").json() if one["prompt"].endswith(f"{how} at 5")]) >= 2


def test_a_page_that_is_loaded_again_goes_on_with_the_answer(chat: Chat) -> None:
    chat.ask("count to 30, hold at 12")
    chat.shows(count(12))
    chat.page.reload()
    chat.shows(count(12))
    chat.is_("streaming")
    chat.model.post("/let-go")
    chat.is_("done")
    chat.shows(count(30))


def test_a_gateway_is_killed_in_mid_stream_and_the_answer_goes_on_at_another_without_a_gap_or_a_repeat(
    chat: Chat,
) -> None:
    chat.ask("count to 600, hold at 500")
    chat.shows_more_than(50)
    os.kill(chat.stack.children()["serve"], signal.SIGKILL)
    until(lambda: _goes_on(chat), lambda: f"{chat.opened}; {chat.stack.output}", DEADLINE)
    chat.model.post("/let-go")
    chat.is_("done")
    chat.shows(count(600))
    assert chat.pieces() == [f"{n} " for n in range(1, 601)]
    first, *others = dict.fromkeys(port for port, message in chat.heard if message.get("event") == "output")
    assert first == chat.stack.port
    assert others


def _goes_on(chat: Chat) -> bool:
    chat.page.wait_for_timeout(20)  # what came is looked at while the page is waited for
    return len(chat.opened) > 1 and chat.heard[-1][0] != chat.stack.port


def test_a_worker_is_killed_and_the_answer_begins_anew_instead_of_going_on_twice(chat: Chat) -> None:
    prompt = "count to 40, hold at 20"
    chat.ask(prompt)
    chat.shows(count(20))
    os.kill(chat.stack.children()["worker"], signal.SIGKILL)
    until(lambda: _begun_again(chat, prompt), lambda: chat.stack.output, DEADLINE)
    chat.model.post("/let-go")
    chat.is_("done")
    chat.shows(count(40))
    assert chat.job()["attempts"] == 2


def _begun_again(chat: Chat, prompt: str) -> bool:
    told = [one for one in chat.model.get("/answers").json() if one["prompt"] == prompt]
    return len(told) == 2 and told[-1]["sent"] == 20


def test_nothing_that_is_said_is_read_as_html(chat: Chat) -> None:
    chat.ask("<img src=x onerror=alert(1)>")
    chat.is_("done")
    expect(chat.answer.locator(".text")).to_contain_text("“<img src=x onerror=alert(1)>”")
    assert chat.page.locator("#messages img").count() == 0


def test_the_pages_token_opens_this_task_alone_and_is_in_no_log(chat: Chat) -> None:
    token = httpx.post(f"{chat.address}/access", timeout=DEADLINE).json()["token"]
    with httpx.Client(
        base_url=f"{chat.stack.url}/api/v1", headers={"Authorization": f"Bearer {token}"}, timeout=DEADLINE
    ) as thief:
        assert thief.get("/jobs").status_code == 403
        assert thief.post("/tasks/celery.backend_cleanup", json={}).status_code == 403
        assert thief.post("/tasks/chat.complete", json={"args": [[]]}).status_code == 422
    chat.ask("count to 2")
    chat.is_("done")
    assert "eyJ" not in chat.stack.output
    assert KEY not in chat.stack.output
