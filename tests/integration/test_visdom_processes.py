"""Exit and output of a process with a visdom logger, for every behavior of the server."""

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
from util.loggers import VisdomLogger, visdom_logger
from util.loggers.base import TrainingPosition
visdom_logger.RESPONSE_TIMEOUT = 10_000
printed = threading.Event()
logger = VisdomLogger(visdom_logger.VisdomSettings("cats", "cats", port=int(sys.argv[1])))
logger.start(lambda line: (print(line), printed.set()))
for call in range(100):
    logger.log_scalars("losses", TrainingPosition(1, call, call), {"G": 1.0})
    logger.log_images(TrainingPosition(1, call, call), {"fake_B": torch.zeros(1, 3, 8, 8)})
if sys.argv[2] == "expecting a line":
    printed.wait()
logger.close()
print("end of the run")
"""

RUN_WITHOUT_VISDOM = """
import sys
sys.modules["visdom"] = None  # makes its import fail
from util.loggers import VisdomLogger
from util.loggers.base import TrainingPosition
from util.loggers.visdom_logger import VisdomSettings
logger = VisdomLogger(VisdomSettings("cats", "cats"))
logger.start(print)
logger.log_scalars("losses", TrainingPosition(1, 0.5, 1), {"G": 1.0})
logger.close()
"""


def output_of(code: str, *arguments: str) -> tuple[str, str]:
    """Return standard output and standard error of a process that must exit with status 0 in time."""
    command = [sys.executable, "-c", code, *arguments]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=HANG_GUARD_SECONDS, check=True)
    return run.stdout, run.stderr


def test_a_process_exits_although_its_server_does_not_answer() -> None:
    with silent_server() as port:
        assert output_of(RUN, str(port), "expecting nothing") == ("end of the run\n", "")


def test_a_process_without_a_server_prints_one_line() -> None:
    port = free_port()
    out, err = output_of(RUN, str(port), "expecting a line")
    assert out.splitlines() == [no_server_line(port), "end of the run"]
    assert err == ""


def test_a_process_with_a_server_prints_nothing_else(tmp_path: Path) -> None:
    port = free_port()
    with visdom_server(port, tmp_path):
        assert output_of(RUN, str(port), "expecting nothing") == ("end of the run\n", "")


def test_a_missing_package_is_one_line() -> None:
    out, err = output_of(RUN_WITHOUT_VISDOM)
    assert re.fullmatch(r"visdom is not installed: .*`pip install visdom`.*\n", out)
    assert err == ""
