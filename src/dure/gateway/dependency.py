"""The client that serves a request: the one that the application's lifespan opened."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Request

from dure.client import Dure


def get_dure(request: Request) -> Dure:
    return cast(Dure, request.app.state.dure)


DureDep = Annotated[Dure, Depends(get_dure)]
