"""One task: it asks a model, and gives every piece of the answer on at once."""

from functools import cache
from typing import Annotated, Any, Literal, TypedDict

from celery import Celery
from openai import OpenAI
from pydantic import Field

import dure
from examples.chat.settings import Model

app = Celery("chat")
settings = Model()


class Message(TypedDict):
    role: Literal["user", "assistant"]
    content: Annotated[str, Field(max_length=20_000)]


class Answer(TypedDict):
    text: str
    model: str
    why_it_ended: str | None
    tokens: int | None


@cache
def client() -> OpenAI:
    """One for all threads of a process, so that its connections are used again."""
    return OpenAI(base_url=settings.endpoint, api_key=settings.key, timeout=settings.patience)


@app.task(name="chat.complete")
def complete(messages: Annotated[list[Message], Field(min_length=1, max_length=100)]) -> Answer:
    """Answer the last message; the pieces of the answer are the job's output."""
    pieces: list[str] = []
    model, why, tokens = settings.model, None, None
    conversation: Any = [{"role": "system", "content": settings.instructions}, *messages]
    answer = client().chat.completions.create(
        model=settings.model,
        messages=conversation,
        max_completion_tokens=settings.longest,
        stream=True,
        stream_options={"include_usage": True},
    )
    with answer:
        for chunk in answer:
            model = chunk.model or model
            tokens = chunk.usage.completion_tokens if chunk.usage else tokens
            for choice in chunk.choices[:1]:
                why = choice.finish_reason or why
                if piece := choice.delta.content:
                    pieces.append(piece)
                    dure.emit(piece)  # raises here when the job was cancelled, which closes the stream too
    if why is None:
        raise RuntimeError("the model's answer broke off")
    return {"text": "".join(pieces), "model": model, "why_it_ended": why, "tokens": tokens}
