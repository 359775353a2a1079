"""Media in a real browser: a video goes up, ffmpeg works on it, and what was made comes down."""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.acceptance.cli_stack import Up, until
from tests.services.chromium import chromium, need
from tests.services.service import find, free_port

DEADLINE = 60
LARGEST = 20_000_000
REFERENCE = re.compile(r"[0-9a-f]{32}/source")

# How far each bar was on its way, as the page showed it.
WATCH_BARS = """
globalThis.shown = {};
new MutationObserver((changes) => {
  for (const { target } of changes) (shown[target.closest("li").dataset.node] ??= []).push(target.value);
}).observe(document, { subtree: true, attributeFilter: ["value"] });
"""

expect.set_options(timeout=DEADLINE * 1000)


@dataclass
class Media:
    stack: Up
    page: Page
    http: httpx.Client
    store: Path

    def choose(self, name: str, content: bytes) -> None:
        self.page.set_input_files("#file", files=[{"name": name, "mimeType": "video/mp4", "buffer": content}])

    def ends(self, status: str) -> None:
        expect(self.page.locator("#another")).to_be_visible()
        expect(self.page.locator("#status")).to_have_text(status)

    def state(self, node: str) -> str | None:
        return self.page.locator(f"[data-node={node}]").get_attribute("data-state")

    @property
    def workflow(self) -> str:
        return self.page.url.partition("#")[2]

    def jobs(self) -> list[dict[str, Any]]:
        answer = httpx.get(f"{self.stack.url}/api/v1/jobs", params={"workflow": self.workflow}, timeout=DEADLINE)
        return answer.json()["jobs"]  # type: ignore[no-any-return]

    def files(self) -> list[str]:
        return [str(path.relative_to(self.store)) for path in self.store.rglob("*") if path.is_file()]

    def ffmpegs(self) -> list[int]:
        """Those that work on a file of this store."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or [""]
            if words[0] == "ffmpeg" and any(str(self.store) in word for word in words):
                found.append(process.pid)
        return found


def made(path: Path, seconds: int, size: str) -> bytes:
    need(find("ffmpeg"), "ffmpeg is not installed: run `scripts/services ffmpeg`")
    picture = ["-f", "lavfi", "-i", f"testsrc2=size={size}:rate=25:duration={seconds}"]
    sound = ["-f", "lavfi", "-i", f"sine=frequency=440:duration={seconds}"]
    codecs = ["-c:v", "libx264", "-preset", "ultrafast", "-crf", "45", "-c:a", "aac"]
    subprocess.run(["ffmpeg", "-v", "error", *picture, *sound, *codecs, str(path)], check=True, timeout=DEADLINE)
    return path.read_bytes()


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """640 by 480, with sound."""
    return made(tmp_path_factory.mktemp("video") / "v.mp4", 8, "640x480")


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Some minutes of work, where others work too."""
    return made(tmp_path_factory.mktemp("video") / "v.mp4", 120, "640x360")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def running(video: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Up, int]]:
    home, port = tmp_path_factory.mktemp("media"), free_port()
    beside = f"uvicorn examples.media.api:app --port {port}"
    environment = {
        "DURE_CORS_ORIGINS": f"http://127.0.0.1:{port}",
        "MEDIA_STORE": str(home / "store"),
        "MEDIA_LARGEST": str(LARGEST),
    }
    up = Up(home, "-A", "examples.media.tasks:app", "--with", beside, environment=environment)
    up.environment["MEDIA_GATEWAY"] = up.url
    with up:
        up.tells("Uvicorn running")
        yield up, port


@pytest.fixture
def media(running: tuple[Up, int], browser: Browser) -> Iterator[Media]:
    up, port = running
    address = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=address, timeout=DEADLINE) as client, browser.new_context() as context:
        context.set_default_timeout(DEADLINE * 1000)
        page = context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.add_init_script(WATCH_BARS)
        page.goto(address)
        expect(page.locator("#limit")).to_contain_text("MB")
        yield Media(up, page, client, up.home / "store")
        assert errors == []


def probe(path: Path) -> dict[str, Any]:
    command = ["ffprobe", "-v", "error", "-of", "json", "-show_streams", str(path)]
    done = subprocess.run(command, check=True, capture_output=True, timeout=DEADLINE)
    return {stream["codec_type"]: stream for stream in json.loads(done.stdout)["streams"]}


def test_a_video_is_made_in_two_sizes_and_pictured_and_comes_down(media: Media, video: bytes, tmp_path: Path) -> None:
    media.choose("A walk.mov", video)
    media.ends("Done")
    expect(media.page.locator("#title")).to_have_text("A walk")
    for bar in ("large", "small"):
        shown = media.page.evaluate(f"shown.{bar}")
        assert any(0 < value < 1 for value in shown), shown
        assert shown[-1] == 1
    sizes = {}
    for name in ("large.mp4", "small.mp4", "thumbnail.jpg"):
        with media.page.expect_download() as download:
            media.page.locator(f'#files a[href*="{name}"]').click()
        assert download.value.suggested_filename == f"A walk-{name}"
        path = tmp_path / name
        download.value.save_as(path)
        streams = probe(path)
        sizes[name] = (streams["video"]["width"], streams["video"]["height"])
        assert ("audio" in streams) == (name != "thumbnail.jpg")
    assert sizes == {"large.mp4": (640, 480), "small.mp4": (480, 360), "thumbnail.jpg": (640, 480)}
    media.page.wait_for_function("document.querySelector('video').videoWidth === 640")


def test_messages_carry_references_and_no_bytes(media: Media, video: bytes) -> None:
    media.choose("v.mp4", video)
    media.ends("Done")
    jobs = media.jobs()
    assert {job["node"] for job in jobs} == {"probe", "large", "small", "thumbnail", "summary"}
    for job in jobs:
        assert len(json.dumps([job["args"], job["kwargs"], job["result"]])) < 2000
        if job["node"] != "summary":
            assert REFERENCE.fullmatch(job["args"][0])


def test_a_page_that_is_loaded_again_shows_where_it_stands(media: Media, video: bytes) -> None:
    media.choose("Again.mp4", video)
    media.page.wait_for_url(re.compile("#"))
    media.page.reload()
    media.ends("Done")
    expect(media.page.locator("#files a")).to_have_count(3)
    media.page.reload()
    media.ends("Done")
    expect(media.page.locator("#title")).to_have_text("Again")


def test_cancelling_stops_ffmpeg(media: Media, long_video: bytes) -> None:
    media.choose("long.mp4", long_video)
    expect(media.page.locator("[data-node=small] .told")).to_contain_text("x")
    until(lambda: len(media.ffmpegs()) == 2, lambda: str(media.ffmpegs()), DEADLINE)
    media.page.click("#cancel")
    media.ends("Cancelled")
    until(lambda: media.ffmpegs() == [], lambda: str(media.ffmpegs()), DEADLINE)
    ends = {job["node"]: job["reason"] for job in media.jobs()}
    assert (ends["large"], ends["small"], ends["summary"]) == ("terminated", "terminated", "revoked")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"no video at all", "Invalid data"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/hostname\n", "not on whitelist"),
        (b"ffconcat version 1.0\nfile /etc/hostname\n", "not on whitelist"),
    ],
    ids=["text", "playlist", "concatenation"],
)
def test_what_is_no_video_or_names_other_files_is_refused_with_a_reason(content: bytes, why: str, media: Media) -> None:
    media.choose("bad.mp4", content)
    media.ends("")
    expect(media.page.locator("#failed")).to_contain_text(why)
    assert str(media.store) not in media.page.locator("#failed").inner_text()
    assert media.state("probe") == media.state("large") == "FAILURE"


def test_a_file_that_is_too_large_is_refused_and_nothing_of_it_is_kept(media: Media) -> None:
    before = media.files()
    media.choose("large.mp4", bytes(LARGEST + 1))
    expect(media.page.locator("#refused")).to_contain_text("20 MB")

    def unannounced() -> Iterator[bytes]:
        for _ in range(LARGEST // 1_000_000 + 1):
            yield bytes(1_000_000)

    kind = {"Content-Type": "application/octet-stream"}
    assert media.http.post("/uploads", content=unannounced(), headers=kind).status_code == 413
    assert _announced(media.http.base_url.port, LARGEST + 1, kind) == 413
    assert media.files() == before


def _announced(port: int | None, size: int, headers: dict[str, str]) -> int:
    """The answer to one that says how much it will send, before it sends any."""
    connection = HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    with closing(connection):
        connection.request("POST", "/uploads", headers=headers | {"Content-Length": str(size)})
        return connection.getresponse().status


def test_a_name_is_shown_and_is_part_of_no_path(media: Media) -> None:
    kind = {"Content-Type": "application/octet-stream"}
    name = "..\\../etc/<b>pass\nwd.x.mp4"
    answer = media.http.post("/uploads", params={"name": name}, content=b"x", headers=kind)
    assert answer.json()["title"] == "<b>passwd.x"
    assert all(re.fullmatch(r"[0-9a-f]{32}/[a-z]+(\.[a-z0-9]+)?", name) for name in media.files())
    assert media.http.post("/uploads", content=b"x", headers={"Content-Type": "text/plain"}).status_code == 415


def test_what_was_uploaded_and_what_is_elsewhere_is_not_given_out(media: Media) -> None:
    (source, *_) = [name for name in media.files() if name.endswith("/source")] or ["0" * 32 + "/source"]
    folder = source.partition("/")[0]
    for path in (source, "../up.log", "..%2fup.log", f"{folder}/..%2f..%2fup.log", f"{folder}/%2e%2e/large.mp4"):
        assert media.http.get(f"/files/{path}").status_code == 404


def test_no_token_is_in_a_log(media: Media, video: bytes) -> None:
    media.choose("v.mp4", video)
    media.ends("Done")
    assert "/events" in media.stack.output or "GET /uploads/" in media.stack.output
    assert "eyJ" not in media.stack.output
