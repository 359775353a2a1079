"""Submitting, watching and cancelling over one connection; docs/asyncapi.yaml says what is sent."""

from __future__ import annotations

from fastapi import APIRouter, WebSocket

from dure.gateway.feeds import feeds_of
from dure.gateway.tokens import tokens_of
from dure.gateway.ws.connection import Connection

router = APIRouter()


@router.websocket("/ws")
async def websocket(websocket: WebSocket) -> None:
    dure = websocket.app.state.dure
    tokens, feeds = tokens_of(websocket.scope, dure.settings), feeds_of(websocket.scope)
    await Connection(websocket, dure, tokens, feeds).run()
