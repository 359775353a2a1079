"""What the blog posts build: FastAPI handlers that call Celery's `.delay()`, and an empty one as the ceiling."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from fastapi import FastAPI
from pydantic import BaseModel

celery = Celery("plain", broker=os.environ["DURE_BROKER_URL"])
if os.environ.get("CONFIRM_PUBLISH"):
    celery.conf.broker_transport_options = {"confirm_publish": True}


@celery.task(name="bench.noop", ignore_result=True)
def noop(x: int, y: int) -> None: ...


class Submitted(BaseModel):
    args: list[Any]


app = FastAPI()


@app.post("/empty")
async def empty() -> dict[str, str]:
    return {}


@app.post("/def", status_code=202)
def submit(body: Submitted) -> dict[str, str]:
    return {"id": noop.delay(*body.args).id}


@app.post("/async", status_code=202)
async def submit_async(body: Submitted) -> dict[str, str]:
    return {"id": noop.delay(*body.args).id}
