"""What a worker knows of itself, who looks after it, and to whom it is told.

health      what the state is; read from any thread
telling     told to a file or by HTTP, from threads of their own, so a loop that stands still holds up nothing
watchdog    looks each second whether jobs can still arrive, and starts the consumer anew where they cannot
asking      asks the broker about the queues without waiting for its answer
blocked     sees from a thread that the asyncio loop does not turn, and who holds it up
"""
