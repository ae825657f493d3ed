"""Servers for the logger tests: visdom's own, and one that does not answer."""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

HANG_GUARD_SECONDS = 120

# `python -m visdom.server` first tries to download its web assets; this starts the same server without them.
RUN_VISDOM = """
import sys
from visdom.server.run_server import start_server
start_server(port=int(sys.argv[1]), env_path=sys.argv[2], bind_local=True, base_url="")
"""


def wait_until(condition: Callable[[], bool]) -> None:
    """Return as soon as the condition is true; fail after HANG_GUARD_SECONDS."""
    deadline = time.monotonic() + HANG_GUARD_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "timeout: the condition did not become true"
        time.sleep(0.02)


def free_port() -> int:
    """Return a port where connections are refused."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def no_server_line(port: int) -> str:
    """Return the line that the visdom logger prints if nothing answers at the port."""
    return (
        f"no visdom server at http://localhost:{port}: training continues without it. "
        "Start one with `python -m visdom.server`."
    )


@contextlib.contextmanager
def visdom_server(port: int, env_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a visdom server until the end of the `with` statement."""
    command = [sys.executable, "-c", RUN_VISDOM, str(port), str(env_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_until(lambda: _accepts(port) or server.poll() is not None)
            assert server.poll() is None, "the visdom server did not start"
            yield server
        finally:
            server.kill()


@contextlib.contextmanager
def silent_server() -> Iterator[int]:
    """Yield a port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield listener.getsockname()[1]


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
