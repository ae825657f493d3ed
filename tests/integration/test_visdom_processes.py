"""How a process with a live view ends, and what it prints, whatever its visdom server does."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("visdom")

from conftest import ROOT
from visdom_servers import HANG_GUARD_SECONDS, free_port, no_server_line, silent_server, visdom_server

RUN = """
import sys
import threading
import torch
from util.loggers import visdom_client
from util.loggers.base import Moment
from util.loggers.visdom_logger import visdom_logger
visdom_client.ANSWER_SECONDS = 10_000
said = threading.Event()
view = visdom_logger("cats", display_port=int(sys.argv[1]))
view.start(lambda line: (print(line), said.set()))
for call in range(100):
    view.plot("losses", Moment(1, call, call), {"G": 1.0})
    view.images(Moment(1, call, call), {"fake_B": torch.zeros(1, 3, 8, 8)})
if sys.argv[2] == "expecting a line":
    said.wait()
view.close()
print("end of the run")
"""

RUN_WITHOUT_VISDOM = """
import sys
sys.modules["visdom"] = None  # makes its import fail
from util.loggers.base import Moment
from util.loggers.visdom_logger import visdom_logger
view = visdom_logger("cats")
view.start(print)
view.plot("losses", Moment(1, 0.5, 1), {"G": 1.0})
view.close()
"""


def output_of(code: str, *arguments: str) -> tuple[str, str]:
    """Standard output and standard error of a process that must end well, and end at all."""
    command = [sys.executable, "-c", code, *arguments]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=HANG_GUARD_SECONDS, check=True)
    return run.stdout, run.stderr


def test_a_process_ends_while_its_server_is_silent() -> None:
    with silent_server() as port:
        assert output_of(RUN, str(port), "expecting nothing") == ("end of the run\n", "")


def test_a_process_without_a_server_says_so_in_one_line() -> None:
    port = free_port()
    out, err = output_of(RUN, str(port), "expecting a line")
    assert out.splitlines() == [no_server_line(port), "end of the run"]
    assert err == ""


def test_a_process_with_a_server_prints_nothing_of_visdoms(tmp_path: Path) -> None:
    port = free_port()
    with visdom_server(port, tmp_path):
        assert output_of(RUN, str(port), "expecting nothing") == ("end of the run\n", "")


def test_a_missing_package_is_one_line() -> None:
    out, err = output_of(RUN_WITHOUT_VISDOM)
    assert re.fullmatch(r"visdom is not installed: .*`pip install visdom`.*\n", out)
    assert err == ""
