"""No token for a browser is in a log."""

import re
import subprocess
import sys
from pathlib import Path

import httpx
from websockets.sync.client import connect

from tests.acceptance.site import until
from tests.acceptance.test_http_tokens import CHECKOUT, KEY, bearer, signed
from tests.services.service import free_port

_SERVER = """
import sys, threading, uvicorn, logging
from dure.gateway.app import create_app
from dure.settings import Settings
app = create_app(Settings(_env_file=None, home=sys.argv[1], api_keys=(sys.argv[2],), cors_origins=("https://a.example",)))
uvicorn.run(app, port=int(sys.argv[3]), log_level="info")
"""


def test_no_token_is_in_any_log_also_where_the_server_writes_every_address_down(tmp_path: Path) -> None:
    port = free_port()
    log = tmp_path / "log"
    environment = {"PYTHONPATH": str(CHECKOUT / "src"), "PYTHONUNBUFFERED": "1"}
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVER, str(tmp_path), KEY, str(port)],
            env=environment,
            stdout=output,
            stderr=output,
        )
    token, other = signed(), signed(id="shop.other")
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as http:

            def answers() -> bool:
                try:
                    return http.get("/healthz").status_code == 200
                except httpx.TransportError:
                    return False

            until(answers, "the gateway")
            cors = {"Origin": "https://a.example", "Access-Control-Request-Method": "GET"}
            for path in ("/api/v1/jobs/secretly/events", "/nothing", "/api/v1/ws"):
                http.get(path, params={"token": token, "a": "b"})
                http.get(f"{path}?%74oken={token}")
                http.get(path, headers=bearer(token))
                http.options(path, params={"token": token}, headers=cors)
        for url, subprotocols in ((f"?token={token}", ["dure.v1"]), ("", ["dure.v1", f"bearer.{other}"])):
            with connect(f"ws://127.0.0.1:{port}/api/v1/ws{url}", subprotocols=subprotocols, proxy=None):  # type: ignore[arg-type]
                pass
    finally:
        process.terminate()
        process.wait(20)
    written = log.read_text()
    assert re.search(r"GET /api/v1/jobs/secretly/events\?a=b HTTP", written)
    assert "WebSocket /api/v1/ws" in written
    assert not re.search(r"[\w-]{20,}\.[\w-]{20,}\.[\w-]{20,}", written)
    assert "eyJ" not in written
