"""Exit statuses without tracebacks: closed readers, closed or full outputs, a lost terminal, no memory, stop signals."""

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from image_factory import two_domains
from programs import ENVIRONMENT, ROOT, command
from training_processes import ENDLESS, RUN, STATE

from util.errors import UserError, exit_on_user_error
from util.signals import STOP_SIGNALS, raise_terminated


def start(folder: Path, program: str, *arguments: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command(program, *arguments), cwd=folder, env=ENVIRONMENT, stdout=pipe, stderr=pipe, text=True, bufsize=1
    )


def test_a_run_that_is_no_longer_read_is_saved_and_ends(tmp_path: Path) -> None:
    two_domains(tmp_path / "data", size=(40, 32))
    with start(tmp_path, "train.py", *RUN, *ENDLESS, "--name", "unread", "--num_threads", "2") as training:
        assert any(line.startswith("(epoch: 1, ") for line in training.stdout)
        training.stdout.close()  # as `head` does
        assert (training.wait(timeout=250), training.stderr.read()) == (141, "")
    assert (tmp_path / "checkpoints" / "unread" / "latest_net_G.pth").is_file()


def test_a_run_needs_no_outputs(tmp_path: Path) -> None:
    two_domains(tmp_path / "data", size=(40, 32))
    line = command("train.py", *RUN, "--n_epochs", "1", "--n_epochs_decay", "0", "--name", "mute")
    closed = ["bash", "-c", 'exec "$@" <&- >&- 2>&-', "bash", *line]
    assert subprocess.run(closed, cwd=tmp_path, env=ENVIRONMENT, timeout=250).returncode == 0
    assert (tmp_path / "checkpoints" / "mute" / "latest_net_G.pth").is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="terminals of other systems end in other ways")
@pytest.mark.parametrize(("prepare", "epochs", "status"), [("", ENDLESS, 129), ('trap "" HUP; ', ["--n_epochs", "3"], 0)])
def test_a_run_whose_terminal_goes_is_saved(tmp_path: Path, prepare: str, epochs: list[str], status: int) -> None:
    """A broken ssh connection: the run stops, saved, unless it ignores SIGHUP."""
    two_domains(tmp_path / "data", size=(40, 32))
    run = [*RUN, *epochs, "--n_epochs_decay", "0", "--name", "away", "--num_threads", "1"]
    line = ["bash", "-c", f'{prepare}exec "$@"', "bash", *command("train.py", *run)]
    training, terminal = pty.fork()
    if training == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it
        os.chdir(tmp_path)
        os.execvpe(line[0], line, ENVIRONMENT)
    told = b""
    while b"epoch 1 image " not in told:
        told += os.read(terminal, 65536)  # OSError if the run ended before
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(training, 0)[1]) == status
    run_dir = tmp_path / "checkpoints" / "away"
    assert (run_dir / STATE).is_file() and (run_dir / "latest_net_G.pth").is_file()
    assert status or "(epoch: 3, iters: 5," in (run_dir / "loss_log.txt").read_text()


@pytest.mark.parametrize("program", ["train.py", "test.py"])
def test_ctrl_c_during_the_import_of_pytorch_prints_no_traceback(tmp_path: Path, program: str) -> None:
    with start(tmp_path, program) as starting:
        libraries = Path(f"/proc/{starting.pid}/maps")
        while starting.poll() is None and "libtorch" not in libraries.read_text():
            time.sleep(0.01)
        starting.send_signal(signal.SIGINT)
        ended = starting.wait(timeout=250), starting.stderr.read()
    assert ended in ((-signal.SIGINT, ""), (130, "interrupted\n"))


def test_out_of_memory_prints_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for size in (10**14, 10**18, 10**19):  # too much for any machine, for its addresses, for 64 bits
        with pytest.raises(SystemExit) as ending, exit_on_user_error():
            torch.empty(size // 10**9, 10**9)
        assert ending.value.code == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: out of memory")


def test_a_caller_that_goes_on_still_gets_signals() -> None:
    for number in STOP_SIGNALS:
        before = signal.signal(number, raise_terminated)
        try:
            with pytest.raises(SystemExit), exit_on_user_error():
                raise UserError("wrong")
            assert signal.getsignal(number) is raise_terminated
        finally:
            signal.signal(number, before)


def test_other_failures_keep_their_traceback() -> None:
    with pytest.raises(RuntimeError, match="cannot be multiplied"), exit_on_user_error():
        torch.ones(2, 3) @ torch.ones(2, 3)


BUFFERED, UNBUFFERED = "", "1"  # what PYTHONUNBUFFERED may be
FULL = Path("/dev/full")


def end(body: str, unbuffered: str = BUFFERED, prepare: str = "pass", **outputs: Any) -> tuple[int, str]:
    """Run `body` as the body of a program. Return the exit status and stderr."""
    program = f"import errno, os, sys\nfrom util.errors import *\n{prepare}\nwith exit_on_user_error():\n    {body}\n"
    line = [*outputs.pop("launcher", []), sys.executable, "-c", program]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | outputs
    environment = ENVIRONMENT | {"PYTHONUNBUFFERED": unbuffered}
    finished = subprocess.run(line, cwd=ROOT, env=environment, text=True, timeout=250, **streams)
    return finished.returncode, finished.stderr or ""


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_while_python_exits_prints_no_traceback(number: signal.Signals) -> None:
    prepare = f"import atexit, signal; atexit.register(signal.raise_signal, {int(number)})"
    status = -number if number == signal.SIGINT else 2
    assert end("raise UserError('wrong')", prepare=prepare) == (status, "error: wrong\n")


@pytest.fixture
def unread() -> Iterator[int]:
    """Return the write end of a pipe without a reader."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.mark.parametrize("unbuffered", [BUFFERED, UNBUFFERED])
@pytest.mark.parametrize("ending", ["pass", "sys.exit(0)"])
def test_closed_reader_gives_status_141(unread: int, unbuffered: str, ending: str) -> None:
    assert end(f"print('x'); {ending}", unbuffered, stdout=unread) == (141, "")
    assert end(f"print('x', file=sys.stderr); {ending}", unbuffered, stderr=unread) == (141, "")


def test_an_error_is_reported_although_the_reader_has_gone(unread: int) -> None:
    assert end("print('x'); raise DivergedError('no number')", stdout=unread) == (3, "error: no number\n")
    status, complained = end("print('x'); {}['lost']", stdout=unread)
    assert status == 1 and complained.endswith("KeyError: 'lost'\n")
    assert end("raise DivergedError('no number')", stderr=unread) == (3, "")


@pytest.mark.parametrize("unbuffered", [BUFFERED, UNBUFFERED])
def test_another_broken_pipe_keeps_its_traceback(unread: int, unbuffered: str) -> None:
    status, complained = end(f"os.write({unread}, b'x')", unbuffered, pass_fds=[unread])
    assert status == 1 and complained.endswith("BrokenPipeError: [Errno 32] Broken pipe\n")


def test_a_missing_file_prints_one_line() -> None:
    sentence = "error: gone: cannot be used (No such file or directory). Check the path and the disk.\n"
    assert end("open('gone')") == (1, sentence)


@pytest.mark.skipif(not FULL.exists(), reason="there is no device that is always full")
@pytest.mark.parametrize("unbuffered", [BUFFERED, UNBUFFERED])
def test_output_to_a_full_disk_prints_one_line(unbuffered: str) -> None:
    with FULL.open("w") as full:
        assert end("print('x')", unbuffered, stdout=full) == (
            1,
            "error: output: cannot be written (No space left on device). Check the disk.\n",
        )


def test_a_program_runs_without_stdout() -> None:
    assert end("pass", launcher=["bash", "-c", 'exec "$@" >&-', "bash"]) == (0, "")


def test_out_of_memory_for_a_new_process_prints_one_line() -> None:
    sentence = "error: out of memory. Use smaller images, batches or networks.\n"
    assert end("raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))") == (1, sentence)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGXCPU, signal.SIGUSR1, signal.SIGUSR2])
def test_a_stop_signal_prints_one_line(number: signal.Signals) -> None:
    status, complained = end(f"os.kill(os.getpid(), {number:d})")
    assert status == 128 + number
    assert complained == ("terminated\n" if number == signal.SIGTERM else f"terminated by {number.name}\n")


def test_a_stop_signal_that_is_ignored_ends_nothing() -> None:
    ignoring = ["bash", "-c", 'trap "" HUP; exec "$@"', "bash"]
    assert end(f"os.kill(os.getpid(), {signal.SIGHUP:d})", launcher=ignoring) == (0, "")


def test_what_is_read_by_mistake_keeps_its_traceback() -> None:
    status, complained = end("open('tests')")
    assert status == 1 and complained.endswith("IsADirectoryError: [Errno 21] Is a directory: 'tests'\n")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps to a limit of addresses")
def test_a_network_that_finds_no_memory_says_so() -> None:
    prepare = """
import resource
from models.networks.factory import define_G
from options import TrainOptions

opt = TrainOptions().parse("--dataroot d --name n --netG resnet_9blocks --ngf 256".split())
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**27,) * 2)
"""
    status, complained = end("define_G(opt, 3, 3)", prepare=prepare)
    assert status == 1 and complained.startswith("error: out of memory")


def test_a_program_that_is_imported_leaves_ctrl_c_alone() -> None:
    prepare = "import importlib, signal, threading"
    body = (
        "thread = threading.Thread(target=importlib.import_module, args=['scripts.app']); thread.start(); thread.join(); "
        "sys.exit(signal.getsignal(signal.SIGINT) is not signal.default_int_handler)"
    )
    assert end(body, prepare=prepare) == (0, "")
