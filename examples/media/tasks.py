"""A video is looked at, made in two sizes and pictured side by side, and summed up: five small tasks, one workflow.

A task that runs twice writes the same files again: what it makes has a place that follows from its arguments.
"""

from typing import Annotated, Literal, TypedDict

from celery import Celery
from pydantic import Field

import dure
from dure import DAG
from examples.media import ffmpeg
from examples.media.settings import Media
from examples.media.store import Store

app = Celery("media")
settings = Media()

HEIGHTS = {"large": 720, "small": 360}
Size = Literal["large", "small"]


class Video(TypedDict):
    seconds: float
    width: int
    height: int
    codec: str
    sound: str | None
    bytes: int


class Made(TypedDict):
    file: str
    width: int
    height: int
    bytes: int


class Summary(TypedDict):
    title: str
    source: Video
    large: Made
    small: Made
    thumbnail: Made


def process(source: str, title: str) -> DAG:
    """The workflow of one uploaded file; `title` is for people, `source` a reference of the store."""
    dag = DAG("media")
    video = dag.add(probe, source).set(name="probe")
    seconds = video.result["seconds"]
    large = dag.add(transcode, source, "large", seconds).set(name="large")
    small = dag.add(transcode, source, "small", seconds).set(name="small")
    picture = dag.add(thumbnail, source, seconds).set(name="thumbnail")
    whole = dag.add(summarise, title, video.result, large.result, small.result, picture.result).set(name="summary")
    return dag.returns(whole.result)


@app.task(name="media.probe")
def probe(source: str) -> Video:
    """What the file is; an error says why it can't be worked on."""
    store = Store.configured()
    with store.reading(source) as path:
        told = ffmpeg.probe(path)
    of_kind = {stream["codec_type"]: stream for stream in reversed(told["streams"])}
    seconds = float(told["format"].get("duration") or 0)
    if "video" not in of_kind or not seconds:
        raise ValueError("there is no moving picture in the file")
    if seconds > settings.longest:
        raise ValueError(f"it plays for {seconds:,.0f} s, and may play for {settings.longest:,.0f} s")
    picture, sound = of_kind["video"], of_kind.get("audio")
    return {
        "seconds": seconds,
        "width": picture["width"],
        "height": picture["height"],
        "codec": picture["codec_name"],
        "sound": sound and sound["codec_name"],
        "bytes": store.size(source),
    }


@app.task(name="media.transcode")
def transcode(source: str, size: Size, seconds: Annotated[float, Field(gt=0)]) -> Made:
    """Make an MP4 for the web, never larger than the source."""

    def tell(second: float, speed: str) -> None:
        dure.progress(round(min(second, seconds), 2), seconds, size, speed=speed)  # raises when the job was cancelled

    lines = f"2*trunc(min({HEIGHTS[size]}\\,ih)/2)"
    picture = ["-map", "0:v:0", "-vf", f"scale=-2:{lines}", "-c:v", "libx264", "-preset", "veryfast", "-crf", "24"]
    sound = ["-map", "0:a:0?", "-c:a", "aac", "-b:a", "128k", "-ac", "2"]
    rest = ["-sn", "-dn", "-map_metadata", "-1", "-pix_fmt", "yuv420p", "-movflags", "+faststart"]
    options = [*picture, *sound, *rest, "-threads", str(settings.threads)]
    tell(0, "")
    return _made(source, f"{size}.mp4", options, on_progress=tell)


@app.task(name="media.thumbnail")
def thumbnail(source: str, seconds: Annotated[float, Field(gt=0)]) -> Made:
    """A picture from the first third."""
    options = ["-map", "0:v:0", "-frames:v", "1", "-vf", "scale='min(640,iw)':-2", "-q:v", "4", "-update", "1"]
    return _made(source, "thumbnail.jpg", options, start=seconds / 3)


@app.task(name="media.summary")
def summarise(title: str, source: Video, large: Made, small: Made, thumbnail: Made) -> Summary:
    """All of it, for the page."""
    return {"title": title, "source": source, "large": large, "small": small, "thumbnail": thumbnail}


def _made(source: str, name: str, options: list[str], **how: object) -> Made:
    store = Store.configured()
    target = f"{source.partition('/')[0]}/{name}"
    with store.reading(source) as path, store.writing(target) as draft:
        ffmpeg.convert(path, draft, options, patience=settings.patience, **how)  # type: ignore[arg-type]
        picture = ffmpeg.probe(draft, ours=True)["streams"][0]
        size = draft.stat().st_size
    return {"file": target, "width": picture["width"], "height": picture["height"], "bytes": size}
