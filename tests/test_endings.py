"""How programs end when what is around them does: whoever reads their output, the outputs themselves, memory, a user's
patience while they start. Never with a traceback."""

import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from pictures import two_domains
from programs import ENVIRONMENT, command
from test_faults import ENDLESS, RUN

from util.errors import exit_on_user_error


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


@pytest.mark.parametrize("program", ["train.py", "test.py"])
def test_ctrl_c_while_pytorch_is_imported_is_no_traceback(tmp_path: Path, program: str) -> None:
    with start(tmp_path, program) as starting:
        libraries = Path(f"/proc/{starting.pid}/maps")
        while starting.poll() is None and "libtorch" not in libraries.read_text():
            time.sleep(0.01)
        starting.send_signal(signal.SIGINT)
        ended = starting.wait(timeout=250), starting.stderr.read()
    assert ended in ((-signal.SIGINT, ""), (130, "interrupted\n"))


def test_want_of_memory_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    for size in (10**14, 10**18, 10**19):  # on no machine, not even to be addressed, not even to be counted
        with pytest.raises(SystemExit) as ending, exit_on_user_error():
            torch.empty(size // 10**9, 10**9)
        assert ending.value.code == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: memory has run out")


def test_other_failures_keep_their_traceback() -> None:
    with pytest.raises(RuntimeError, match="cannot be multiplied"), exit_on_user_error():
        torch.ones(2, 3) @ torch.ones(2, 3)
