"""Real processes that meet over gloo, for tests."""

import os
import socket

from forked import ONE_THREAD, start


def run_group(program, num_processes=2):
    """Runs the program in so many processes; their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [
        start(
            program,
            environment={
                **os.environ,
                **ONE_THREAD,
                "RANK": str(rank),
                "WORLD_SIZE": str(num_processes),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            },
        )
        for rank in range(num_processes)
    ]
    try:
        return [process.wait() for process in ranks]
    finally:
        for process in ranks:
            process.kill()
