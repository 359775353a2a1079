"""ffmpeg and ffprobe as programs, on files that strangers sent.

A video may name other files and addresses, which a player would open: playlists, concatenations, subtitles. So only
containers that hold everything themselves are read, and nothing but files is opened.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf,gif"
_CAREFULLY = ("-protocol_whitelist", "file", "-format_whitelist", CONTAINERS)
_SAID = 2000  # characters of what ffmpeg said last


class Refused(Exception):
    """ffmpeg could not do it, with its own words."""


def probe(path: Path, *, ours: bool = False) -> dict[str, Any]:
    """What ffprobe tells of a file: `format`, and `streams`; `ours` is one that was made here."""
    careful = () if ours else _CAREFULLY
    command = ["ffprobe", "-v", "error", *careful, "-of", "json", "-show_format", "-show_streams", f"file:{path}"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60, check=False)
    if done.returncode:
        raise Refused(_without(path, done.stderr))
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def convert(
    source: Path,
    target: Path,
    options: Sequence[str],
    *,
    start: float = 0.0,
    patience: float,
    on_progress: Callable[[float, str], object] | None = None,
) -> None:
    """Run ffmpeg; `on_progress` is told the second that it has come to, and its speed, twice a second.

    ffmpeg is killed if `on_progress` raises, and when `patience` is over.
    """
    reading = (*_CAREFULLY, *(("-ss", f"{start:.3f}") if start else ()), "-i", f"file:{source}")
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-progress", "pipe:1", *reading, *options, f"file:{target}"]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, text=True)
        clock = threading.Timer(patience, process.kill)
        clock.start()
        try:
            _follow(process, on_progress)
        finally:
            clock.cancel()
            process.kill()
            code = process.wait()
        if code:
            said.seek(0)
            raise Refused(_without(source, said.read().decode(errors="replace")) or f"ffmpeg ended with {code}")


def _follow(process: subprocess.Popen[str], on_progress: Callable[[float, str], object] | None) -> None:
    assert process.stdout is not None
    told: dict[str, str] = {}
    with process.stdout as lines:
        for line in lines:
            key, _, value = line.strip().partition("=")
            told[key] = value.strip()
            if key == "progress" and on_progress and told.get("out_time_us", "").isdigit():
                on_progress(int(told["out_time_us"]) / 1e6, told.get("speed", ""))


def _without(path: Path, text: str) -> str:
    """What was said, without the place of the file on this machine."""
    return text.replace(f"file:{path}", "the file").replace(str(path), "the file").strip()[-_SAID:]
