"""Takes uploads, starts the workflow, gives the page a token to watch it, and gives out what was made."""

import re
from pathlib import Path
from typing import Annotated

import httpx
from anyio import to_thread
from fastapi import FastAPI, Header, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel

from dure import UnknownWorkflow
from dure.contrib.fastapi import DureDep, lifespan
from examples.media.settings import Media
from examples.media.store import NoReference, Store, TooLarge
from examples.media.tasks import process

STATIC = Path(__file__).parent / "static"
LIFETIME = 900  # seconds
MADE = {"large.mp4": "video/mp4", "small.mp4": "video/mp4", "thumbnail.jpg": "image/jpeg"}

app = FastAPI(title="Media", lifespan=lifespan())
settings = Media()
store = Store.configured()


class Started(BaseModel):
    workflow: str
    title: str


class Watch(BaseModel):
    """Where the workflow's events are; the token opens them and nothing else."""

    events: str
    token: str


class Limits(BaseModel):
    largest: int
    longest: float


@app.get("/", include_in_schema=False)
async def page() -> FileResponse:
    return FileResponse(STATIC / "index.html")


@app.get("/limits")
async def limits() -> Limits:
    return Limits(largest=settings.largest, longest=settings.longest)


@app.post("/uploads", status_code=202, responses={413: {}, 415: {}})
async def upload(
    request: Request,
    dure: DureDep,
    name: Annotated[str, Query(max_length=1000)] = "",
    content_type: Annotated[str, Header()] = "",
    content_length: Annotated[int, Header(ge=0)] = 0,
) -> Started:
    """The body is the file itself. Its name is shown to people, and is part of no path."""
    if content_type != "application/octet-stream":  # what a page of another site cannot send
        raise HTTPException(415, "send the file as application/octet-stream")
    source = f"{store.folder()}/source"
    try:
        await store.receive(source, request.stream(), settings.largest, announced=content_length)
    except TooLarge as exc:
        raise HTTPException(413, str(exc), headers={"Connection": "close"}) from None
    title = title_of(name)
    flow = await dure.submit(process(source, title))
    return Started(workflow=flow.id, title=title)


@app.get("/uploads/{workflow}", responses={404: {}})
async def watch(workflow: str, dure: DureDep) -> Watch:
    try:
        flow = await dure.workflow_handle(workflow)
    except UnknownWorkflow as exc:
        raise HTTPException(404, str(exc)) from None
    wish = {"workflow": flow.id, "allow": ["watch", "cancel"], "expires_in": LIFETIME}
    key = {"Authorization": f"Bearer {settings.gateway_key.get_secret_value()}"} if settings.gateway_key else {}
    async with httpx.AsyncClient(headers=key, timeout=5, trust_env=False) as client:
        try:
            answer = await client.post(f"{settings.gateway}/api/v1/tokens", json=wish)
        except httpx.TransportError:
            raise HTTPException(503, "the gateway does not answer", headers={"Retry-After": "1"}) from None
    token = answer.raise_for_status().json()["token"]
    return Watch(events=f"{settings.gateway}/api/v1/workflows/{flow.id}", token=token)


@app.get("/files/{folder}/{name}", responses={307: {}, 404: {}})
async def file(folder: str, name: str, title: Annotated[str, Query(max_length=1000)] = "") -> Response:
    """What a workflow made; with a title to be saved under that. Never what was uploaded, which may be anything."""
    reference = f"{folder}/{name}"
    try:
        if name not in MADE or not await to_thread.run_sync(store.exists, reference):
            raise HTTPException(404, "there is no such file")
    except NoReference as exc:
        raise HTTPException(404, str(exc)) from None
    if not store.is_local:
        return RedirectResponse(await to_thread.run_sync(store.url, reference, LIFETIME))
    shown = f"{title_of(title)}-{name}" if title else None
    return FileResponse(
        store.path(reference),
        media_type=MADE[name],
        filename=shown,
        headers={"X-Content-Type-Options": "nosniff", "Cache-Control": "private, max-age=3600"},
    )


def title_of(name: str) -> str:
    """A file's name for people: without folders, without its ending, without what cannot be printed."""
    last = re.split(r"[/\\]", name)[-1]
    stem = last.rpartition(".")[0] or last
    return "".join(c for c in stem if c.isprintable()).strip(" .")[:80] or "video"


app.mount("/", StaticFiles(directory=STATIC))
