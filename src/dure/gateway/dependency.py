"""The client that serves a request: the one that the application's lifespan opened."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Request

from dure.client import Dure


async def get_dure(request: Request) -> Dure:
    # A coroutine, though it awaits nothing: FastAPI would send a plain function through a thread.
    return cast(Dure, request.app.state.dure)


DureDep = Annotated[Dure, Depends(get_dure)]
