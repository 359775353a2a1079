"""A model server without a model: OpenAI's chat protocol, for the tests and to try the example without a key.

It answers word by word. Some prompts make it count instead, so that each piece of an answer can be told from the
others, and so that what goes wrong with real models goes wrong at a known place: `count to 20`, `count to 20, hold at
5` (until `POST /let-go`), `count to 20, break off at 5`, `count to 20, fail at 5`.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from typing import Any, Literal
from uuid import uuid4

from fastapi import FastAPI
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Pace(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="STANDIN_")

    seconds: float = Field(0.03, ge=0, description="Between two pieces of an answer.")


class Message(BaseModel):
    role: str
    content: str


class Asked(BaseModel):
    model: str
    messages: list[Message] = Field(min_length=1)
    stream: Literal[True]


class Answered(BaseModel):
    """How far an answer came: `ended` is None while it goes on, and `left` if the caller went away."""

    prompt: str
    sent: int = 0
    ended: Literal["whole", "left", "broken"] | None = None


app = FastAPI(title="A stand-in for a model", docs_url=None, redoc_url=None)
pace = Pace()
answers: list[Answered] = []
let_go = asyncio.Event()

COUNT = re.compile(r"count to (\d{1,4})(?:, (hold|break off|fail) at (\d{1,4}))?")
SPEECH = """\
You wrote: “{prompt}”

I am a stand-in. I know nothing, but I speak a model's protocol, one word at a time:

```
task → dure.emit(piece) → broker → gateway → WebSocket → this page
```

Press Stop while I talk: the task ends, and so does my connection. Reload the page, or kill the gateway: the answer \
goes on where it was, without a gap and without a repeat. With OPENAI_API_KEY or CHAT_BASE_URL set, a real model \
answers here."""


@app.post("/v1/chat/completions", response_class=EventSourceResponse)
async def complete(asked: Asked) -> AsyncIterator[ServerSentEvent]:
    prompt = asked.messages[-1].content
    answered = Answered(prompt=prompt)
    answers.append(answered)
    common = {"id": f"chatcmpl-{uuid4().hex}", "object": "chat.completion.chunk", "created": int(time.time())}

    def chunk(delta: dict[str, str] | None, why: str | None = None, **more: Any) -> ServerSentEvent:
        choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": why}]
        return ServerSentEvent(data=common | {"model": asked.model, "choices": choices} | more)

    counted = COUNT.search(prompt.lower())
    trouble, place = (counted[2], int(counted[3] or 0)) if counted else (None, 0)
    let_go.clear()
    try:
        yield chunk({"role": "assistant", "content": ""})
        for number, piece in enumerate(_pieces(prompt, counted), 1):
            yield chunk({"content": piece})
            answered.sent = number
            await asyncio.sleep(pace.seconds)
            if number == place and trouble == "hold":
                await let_go.wait()
            elif number == place and trouble == "fail":
                answered.ended = "broken"
                yield ServerSentEvent(data={"error": {"message": "the model is overloaded", "type": "server_error"}})
                return
            elif number == place and trouble == "break off":
                answered.ended = "broken"
                raise ConnectionError("broken off, as asked")
        answered.ended = "whole"
        yield chunk({}, "stop")
        yield chunk(None, usage={"completion_tokens": answered.sent, "prompt_tokens": 1})
        yield ServerSentEvent(raw_data="[DONE]")
    finally:
        answered.ended = answered.ended or "left"


def _pieces(prompt: str, counted: re.Match[str] | None) -> list[str]:
    if counted:
        return [f"{number} " for number in range(1, int(counted[1]) + 1)]
    shown = prompt if len(prompt) < 200 else f"{prompt[:200]}…"
    return re.findall(r"\s*\S+", SPEECH.format(prompt=shown))


@app.post("/let-go", status_code=204)
async def go_on() -> None:
    """End every hold."""
    let_go.set()


@app.get("/answers")
async def told() -> list[Answered]:
    return answers
