"""train.py in real processes that can be killed, without waiting for torch to be imported by each.

Run as a program, this is a parent that imports train.py once. For each line of JSON on its standard input, {"folder",
"arguments"}, it forks a process that is `train.py arguments` in that folder, and answers with its number, and with its
status when it has ended.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from programs import ENVIRONMENT, ROOT, command


class Ended(NamedTuple):
    """How a training ended: its exit status, negative where a signal killed it, and what it printed."""

    status: int
    told: str
    complained: str


class TrainingProcesses:
    """The program's other end."""

    def __init__(self) -> None:
        self.parent = subprocess.Popen(
            [sys.executable, __file__],
            env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, folder: Path, *arguments: str, meanwhile: Callable[[int, Path], None] | None = None) -> Ended:
        """`train.py arguments` in `folder`, quietly and on the CPU, to its end; `meanwhile` gets the number of the process
        and the file that it prints to."""
        (folder / "stdout").unlink(missing_ok=True)  # of the process before
        _, _, *rest = command("train.py", *arguments)
        self.parent.stdin.write(json.dumps({"folder": str(folder), "arguments": rest}) + "\n")
        self.parent.stdin.flush()
        pid = int(self.parent.stdout.readline())
        if meanwhile:
            meanwhile(pid, folder / "stdout")
        status = int(self.parent.stdout.readline())
        return Ended(status, (folder / "stdout").read_text(), (folder / "stderr").read_text())

    def close(self) -> None:
        """Ends the parent."""
        self.parent.stdin.close()
        self.parent.wait()
        self.parent.stdout.close()


def serve() -> None:
    import train

    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.chdir(order["folder"])
            for name, stream in (("stdout", 1), ("stderr", 2)):
                os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            sys.argv[1:] = order["arguments"]
            train.main()
            return
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
