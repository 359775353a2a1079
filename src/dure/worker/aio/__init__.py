"""The asyncio pool: `async def` tasks as coroutines on the loop that Celery's consumer turns on, sync ones in threads.

Celery's worker stays as it is. What is replaced:

    kombu's Hub and Timer      one asyncio loop (`hub`, `timer`), which Celery's own `asynloop` turns
    the pool                   two lanes (`asyncio`, `lane`): coroutines on that loop, a thread pool beside it
    LocalStack                 a stack for each context (`stack`), so that a coroutine has a request of its own
    result backend's writes    batched across tasks (`backend`, `writer`)

A coroutine task is traced by Celery's own tracer. It runs in a greenlet (`bridge`), and where it would wait (for the
coroutine, for a result to be stored, for a callback to be published) the greenlet steps aside and the loop goes on.
So signals, retries, callbacks and errors are Celery's in every detail; nothing of the tracer is written anew.
"""
