"""The page, and a token for it. All that follows is between the page and a gateway of Dure.

Whoever may load the page may ask the model. A site with users of its own would look who is there before it gives a
token away.
"""

from pathlib import Path

import httpx
from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel

from examples.chat.settings import Model, Site

STATIC = Path(__file__).parent / "static"
LIFETIME = 900  # seconds
TASK = "chat.complete"

app = FastAPI(title="Chat")
site = Site()


class Access(BaseModel):
    """`gateways` are WebSockets; any of them will do. The token is good for `expires_in` seconds."""

    gateways: list[str]
    token: str
    expires_in: int
    model: str


@app.get("/", include_in_schema=False)
async def page() -> FileResponse:
    return FileResponse(STATIC / "index.html")


@app.post("/access")
async def access() -> Access:
    """A token that lets its holder submit the one task, and watch and cancel what came of it."""
    sockets = [f"ws{gateway.removeprefix('http')}/api/v1/ws" for gateway in site.gateways]
    return Access(gateways=sockets, token=await _token(), expires_in=LIFETIME, model=Model().name)


async def _token() -> str:
    key = {"Authorization": f"Bearer {site.gateway_key.get_secret_value()}"} if site.gateway_key else {}
    wish = {"task": TASK, "allow": ["submit", "watch", "cancel"], "expires_in": LIFETIME}
    async with httpx.AsyncClient(headers=key, timeout=5, trust_env=False) as client:
        for gateway in site.gateways:
            try:
                answer = await client.post(f"{gateway}/api/v1/tokens", json=wish)
            except httpx.TransportError:
                continue
            if answer.status_code == 404:
                raise HTTPException(503, "no worker has announced the task yet", headers={"Retry-After": "1"})
            return str(answer.raise_for_status().json()["token"])
    raise HTTPException(503, "no gateway answers", headers={"Retry-After": "1"})


app.mount("/", StaticFiles(directory=STATIC))
