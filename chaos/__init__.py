"""The suite that tries to lose a job: real processes, real servers, real kills, and a count of what is left.

One cell is one system under one fault. A steady load of jobs is submitted over HTTP while the fault strikes again and
again; then everything is healed, and the harness waits until the system calls every job ended, or makes no progress
any more. What ran is known from a file that each run of the task appends to, outside of every system; what the system
says is asked of the system itself.

    python -m chaos --list
    python -m chaos --jobs 300 --fault worker-kill --system dure
"""
