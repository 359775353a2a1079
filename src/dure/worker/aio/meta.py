"""What is stored of a result, without looking Celery's settings up for each of them.

Celery asks for one setting by its parts and works the time out in two time zones, which takes longer than encoding
and batching the result. Where results are extended, or times are not in UTC, its own way is taken.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any


class Meta:
    """Mixed into a backend."""

    app: Any
    current_task_children: Any
    READY_STATES: frozenset[str]
    _is_plain: bool | None = None

    def _get_result_meta(
        self, result: Any, state: str, traceback: Any, request: Any, format_date: bool = True, encode: bool = False
    ) -> dict[str, Any]:
        if self._is_plain is None:
            is_extended = self.app.conf.find_value_for_key("extended", "result")
            self._is_plain = not is_extended and str(self.app.timezone) == "UTC"
        if not (self._is_plain and format_date):
            stock: dict[str, Any] = super()._get_result_meta(  # type: ignore[misc]
                result, state, traceback, request, format_date=format_date, encode=encode
            )
            return stock
        meta = {
            "status": state,
            "result": result,
            "traceback": traceback,
            "children": self.current_task_children(request),
            "date_done": datetime.now(UTC).isoformat() if state in self.READY_STATES else None,
        }
        if request:
            for field, value in (
                ("group_id", getattr(request, "group", None)),
                ("parent_id", getattr(request, "parent_id", None)),
            ):
                if value:
                    meta[field] = value
        return meta
