"""What the blog posts build: a FastAPI handler that calls Celery's `.delay()`."""

from fastapi import FastAPI
from pydantic import BaseModel

from chaos.task import mark

app = FastAPI()


class Body(BaseModel):
    number: int


@app.get("/healthz")
def healthz() -> dict[str, str]:
    return {}


@app.post("/mark", status_code=202)
def submit(body: Body) -> dict[str, str]:
    return {"id": mark.delay(body.number).id}
