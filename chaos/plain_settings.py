"""Celery's configuration of the plain systems, from the environment: everything not named here is Celery's default."""

import os

broker_url = os.environ["CHAOS_BROKER_URL"]
result_backend = os.environ["CHAOS_RESULT_BACKEND"]
if os.environ.get("CHAOS_ACKS_LATE"):
    task_acks_late = True
    task_reject_on_worker_lost = True
