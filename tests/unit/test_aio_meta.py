"""What is stored of a result is what Celery would store."""

from typing import Any

import pytest
from celery import Celery, states
from celery.app.task import Context
from celery.backends.cache import CacheBackend

from dure.worker.aio.meta import Meta


class Lean(Meta, CacheBackend):
    pass


REQUESTS = (
    None,
    Context({"id": "a", "task": "t"}),
    Context({"id": "a", "group": "g", "parent_id": "p", "children": []}),
    Context({"id": "a", "args": [1], "kwargs": {"k": 2}, "hostname": "w", "delivery_info": {"routing_key": "q"}}),
)


def meta(backend: Any, state: str, request: Any, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = backend._get_result_meta({"n": 1}, state, None, request, **options)
    return found


@pytest.mark.parametrize("conf", [{}, {"result_extended": True}, {"timezone": "Asia/Seoul"}, {"enable_utc": False}])
@pytest.mark.parametrize("state", [states.SUCCESS, states.FAILURE, states.STARTED])
@pytest.mark.parametrize("request_", REQUESTS)
def test_it_is_as_celerys_but_for_the_moment(conf: dict[str, Any], state: str, request_: Any) -> None:
    app = Celery(set_as_current=False, broker="memory://", config_source=conf)
    stock, lean = (kind(app=app, backend="memory://") for kind in (CacheBackend, Lean))
    expected, found = meta(stock, state, request_), meta(lean, state, request_)
    moments = expected.pop("date_done"), found.pop("date_done")
    assert found == expected
    assert [str(m)[-6:] for m in moments if m] in ([], [str(moments[0])[-6:]] * 2)


def test_a_moment_can_be_asked_for_as_it_is() -> None:
    lean = Lean(app=Celery(set_as_current=False, broker="memory://"), backend="memory://")
    assert not isinstance(meta(lean, states.SUCCESS, None, format_date=False)["date_done"], str)
