"""The worker's log lines, in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from dure.url import redact

_log = structlog.get_logger("dure.worker")


def adopted(app: str, changed: Mapping[str, Any]) -> None:
    _log.info("application adopted", app=app)
    shown = {name: redact(value) if name.endswith(("_url", "_backend")) else value for name, value in changed.items()}
    _log.debug("set where the application set nothing", **shown)


def bound_early(tasks: Sequence[str]) -> None:
    _log.warning(
        "tasks were bound before the worker adopted the application and keep Celery's own settings; "
        "set task_acks_late in the application's configuration",
        tasks=list(tasks),
    )


def limits_do_nothing(pool: str, tasks: Sequence[str]) -> None:
    _log.warning(
        'time limits of these tasks do nothing in this pool; use --pool prefork, or --pool asyncio and dure={"pool": '
        '"process"}',
        pool=pool,
        tasks=list(tasks),
    )


def patterns_without_tasks(setting: str, patterns: Sequence[str]) -> None:
    _log.warning("names no task of this worker", setting=setting, patterns=list(patterns))


def processes_broken(restarts: int, seconds: float) -> None:
    _log.error(
        "processes for tasks end as soon as they start; the worker ends. The lines before say why, look at handlers of "
        "worker_process_init first",
        restarts=restarts,
        seconds=seconds,
    )


def queue_kept(queue: str, reason: str) -> None:
    _log.warning("queue exists with other arguments and is consumed as it is", queue=queue, reason=reason)


def event_queue_kept(queue: str, reason: str) -> None:
    _log.warning("event queue exists with other arguments and is used as it is", queue=queue, reason=reason)


def broker_away(exc: BaseException, pause: float) -> None:
    _log.warning("broker cannot be reached; will try again", error=str(exc), seconds=pause)


def events_wait(exc: BaseException) -> None:
    _log.warning("events wait for the broker", error=f"{type(exc).__name__}: {exc}")


def event_dropped(reason: str) -> None:
    _log.error("event dropped", reason=reason)


def events_left(seconds: float) -> None:
    _log.warning("events were not confirmed before the worker ended; their jobs run again", seconds=seconds)


def entries_wait(exc: BaseException) -> None:
    _log.warning("what tasks tell waits for the broker", error=f"{type(exc).__name__}: {exc}")


def entries_dropped(reason: str) -> None:
    _log.error("what tasks told was dropped", reason=reason)


def entries_left(job_id: str, seconds: float) -> None:
    _log.warning(
        "what the task told was not confirmed when it ended; it follows when the broker is back",
        job=job_id,
        seconds=seconds,
    )


def state_not_told(job_id: str, exc: BaseException) -> None:
    _log.warning("a state of the task's own could not be told as progress", job=job_id, error=str(exc))


def acknowledgement_failed(exc: BaseException) -> None:
    _log.error("acknowledgement failed; the broker will deliver the message again", error=repr(exc))


def schema_unknown(task: str, exc: BaseException) -> None:
    _log.warning("task announced without a schema", task=task, error=f"{type(exc).__name__}: {exc}")


def dead_letter_refused(exc: BaseException) -> None:
    _log.error("no permission to send a dead letter; its message is dropped", error=str(exc))


def dead_letter_waits(exc: BaseException) -> None:
    _log.warning("a dead letter could not be sent; its message goes back to its queue", error=repr(exc))


def dead_queue_kept(queue: str, reason: str) -> None:
    _log.warning("dead-letter queue or exchange cannot be declared and is used as it is", queue=queue, reason=reason)


def buried(job_id: str, task: str, deliveries: int) -> None:
    _log.error(
        "job given up: its message was delivered again and again without an end; it may be what kills its workers",
        job=job_id,
        task=task,
        deliveries=deliveries,
    )


def not_counted(job_id: str, exc: BaseException) -> None:
    _log.warning("a delivery could not be counted; the job runs", job=job_id, error=repr(exc))


def taken_over(job_id: str) -> None:
    _log.info("job runs already; its attempt takes the new delivery over", job=job_id)


def came_again(job_id: str) -> None:
    _log.info("job runs or has ended already; the message that came again is acknowledged", job=job_id)


def not_looked_up(job_id: str, exc: BaseException) -> None:
    _log.warning("result backend could not be asked; the job runs again", job=job_id, error=repr(exc))


def not_stored(job_id: str, exc: BaseException) -> None:
    _log.warning("result backend could not be told of the end", job=job_id, error=repr(exc))


def recycles(**why: int) -> None:
    _log.info("the worker takes no more jobs, ends those that it has, and begins anew", **why)


def coroutine_abandoned(job_id: str, task: str) -> None:
    _log.error("a coroutine did not end when it was cancelled; it is left alone", job=job_id, task=task)


def asked_to_stop(job_id: str, pool: str) -> None:
    _log.info(
        "this pool cannot stop a job that runs; it ends when its task calls dure.emit or dure.progress next, else it "
        "runs to its end (use --pool prefork)",
        job=job_id,
        pool=pool,
    )


def revocations_unread(exc: BaseException) -> None:
    _log.warning(
        "the log of cancelled jobs cannot be read; jobs that were cancelled while no worker ran will run",
        error=f"{type(exc).__name__}: {exc}",
    )


def consumer_timeout(version: str, queues: list[str]) -> None:
    _log.warning(
        "the broker delivers a job of these queues again that runs longer than its consumer_timeout (30 minutes unless "
        "set): set `consumer_timeout` in its rabbitmq.conf above the longest job, in milliseconds, or from 3.12 on a "
        "policy with `consumer-timeout` for the queues",
        rabbitmq=version,
        queues=queues,
    )


def revocations_late(exc: BaseException) -> None:
    _log.warning("the log of cancelled jobs could not be read now; will look again", error=repr(exc))


def not_terminated(job_id: str, exc: BaseException) -> None:
    _log.error("job could not be ended", job=job_id, error=repr(exc))


def consumption_restarts(why: str) -> None:
    _log.warning("nothing can be consumed; the consumer starts anew", reason=why)


def loop_blocked(job: Any, seconds: float, stack: Sequence[str]) -> None:
    _log.warning(
        "the loop is held up, and all coroutines with it; put what blocks into `await asyncio.to_thread(...)`",
        **_of(job),
        seconds=seconds,
        stack="\n".join(f"  {place}" for place in stack),
    )


def loop_turns_again(job: Any, seconds: float) -> None:
    _log.warning("the loop turns again", **_of(job), held_up_for=round(seconds, 3))


def _of(job: Any) -> dict[str, str]:
    return {"job": job.id, "task": job.task} if job else {}


def health_not_written(path: str, exc: BaseException) -> None:
    _log.error("the worker's health cannot be written", path=path, error=str(exc))
