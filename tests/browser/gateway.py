"""The gateway, asked by others than the page."""

from typing import Any

import httpx

from tests.acceptance.cli_stack import Up
from tests.browser.conftest import KEY


def post(stack: Up, path: str, body: object) -> Any:
    """As the page's server would, which has the key."""
    key = {"Authorization": f"Bearer {KEY}"}
    response = httpx.post(f"{stack.url}/api/v1/{path}", json=body, headers=key, timeout=30, trust_env=False)
    assert response.is_success, response.text
    return response.json()


def mint(stack: Up, **grant: object) -> str:
    token: str = post(stack, "tokens", grant)["token"]
    return token


def is_over(stack: Up, job: str, token: str) -> bool:
    """Whether the gateway takes the job's token no more."""
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.get(f"{stack.url}/api/v1/jobs/{job}", headers=headers, timeout=30, trust_env=False).status_code == 401


def nobody_reads(stack: Up) -> bool:
    return 'dure_feed_readers{over="sse"} 0.0' in httpx.get(f"{stack.url}/metrics", timeout=30, trust_env=False).text
