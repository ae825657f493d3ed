"""Saves on file systems that refuse what local ones do, and what Windows lacks, in real processes."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from image_factory import two_domains
from programs import ENVIRONMENT, command
from tiny_models import checkpointer
from training_processes import RUN, TWO_EPOCHS

from datasets.archive import ArchiveError, ArchiveMember, unpack
from models import create_model
from options import TrainOptions
from util.runtime.weights import has_partial_file

REFUSING_FSYNC = r"""
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
int fsync(int descriptor) {
    struct stat status;
    fstat(descriptor, &status);
    const char *error = getenv(S_ISDIR(status.st_mode) ? "FOLDER_ERROR" : "FILE_ERROR");
    if (!error) return syscall(SYS_fsync, descriptor);
    errno = atoi(error);
    return -1;
}
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile a library whose fsync fails with the error numbers in FOLDER_ERROR and FILE_ERROR."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "fsync.c").write_text(REFUSING_FSYNC)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "fsync.so", folder / "fsync.c"], check=True)
    return folder / "fsync.so"


SAVES = """
import json, os, sys, torch
from pathlib import Path
from util.runtime.weights import save_weights
for folder_error, file_error in json.loads(sys.argv[1]):
    for name, error in (("FOLDER_ERROR", folder_error), ("FILE_ERROR", file_error)):
        os.environ.pop(name, None)
        if error:
            os.environ[name] = str(error)
    try:
        save_weights(torch.nn.Linear(1, 1), Path("latest_net_G.pth"))
        print(0)
    except OSError as refused:
        print(refused.errno)
"""


def test_a_folder_need_not_be_synced_and_a_file_must_be(tmp_path: Path, shim: Path, root: Path) -> None:
    passed = [errno.EINVAL, errno.ENOTSUP, errno.EIO, errno.EBADF, errno.EACCES]
    trials = [*((error, 0) for error in passed), (0, errno.EINVAL), (0, errno.ENOTSUP), (0, errno.EIO), (0, errno.ENOSPC)]
    told = subprocess.check_output(
        [sys.executable, "-c", SAVES, json.dumps(trials)],
        env=ENVIRONMENT | {"LD_PRELOAD": str(shim), "PYTHONPATH": str(root)},
        cwd=tmp_path,
    )
    assert [int(line) for line in told.split()] == [0] * 7 + [errno.EIO, errno.ENOSPC]
    assert [path.name for path in tmp_path.iterdir()] == ["latest_net_G.pth"]


def test_a_run_is_trained_where_folders_cannot_be_synced(tmp_path: Path, shim: Path) -> None:
    two_domains(tmp_path / "data", n_A=2, n_B=2, size=(40, 32))
    ended = subprocess.run(
        command("train.py", *RUN, *TWO_EPOCHS, "--name", "run"),
        env=ENVIRONMENT | {"LD_PRELOAD": str(shim), "FOLDER_ERROR": str(errno.EIO)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (tmp_path / "checkpoints" / "run" / "latest_net_G.pth").exists()


# What Windows lacks or does otherwise, as far as a Python on Linux can be told to.
LIKE_WINDOWS = """
import asyncio, errno, fcntl, multiprocessing, os, shutil, signal, subprocess, sys, types
multiprocessing.set_start_method("spawn", force=True)
LACKING = {signal: "SIGCHLD SIGHUP SIGQUIT SIGUSR1 SIGUSR2 SIGALRM pthread_sigmask", os: "O_NONBLOCK fork pread"}
for module, names in LACKING.items():
    for name in names.split():
        delattr(module, name)
def for_torch(name):  # which looks whether it is on Windows before it asks for this
    if name == "SIGCHLD" and sys._getframe(1).f_globals["__name__"].startswith("torch."):
        return 17
    raise AttributeError(name)
signal.__getattr__ = for_torch
locks = types.ModuleType("msvcrt")
locks.LK_NBLCK = 2
locks.locking = lambda file, mode, count: fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, count, 0, os.SEEK_CUR)
sys.modules |= {"fcntl": None, "msvcrt": locks}
open_file, replace_file, refused = os.open, os.replace, set()
def open_no_folder(path, flags, mode=0o777, **more):
    if os.path.isdir(path):
        raise PermissionError(errno.EACCES, "Permission denied", path)
    return open_file(path, flags, mode, **more)
def replace_later(source, target, **more):
    if target not in refused:  # a scanner has it open
        refused.add(target)
        raise PermissionError(errno.EACCES, "Access is denied", source)
    replace_file(source, target, **more)
os.open, os.replace = open_no_folder, replace_later
"""


@pytest.fixture(scope="module")
def like_windows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the environment of a Python process without the functions that Windows lacks."""
    folder = tmp_path_factory.mktemp("windows")
    (folder / "sitecustomize.py").write_text(LIKE_WINDOWS)
    return ENVIRONMENT | {"PYTHONPATH": str(folder)}


def test_training_and_testing_do_without_what_windows_lacks(tmp_path: Path, like_windows: dict[str, str]) -> None:
    two_domains(tmp_path / "data", n_A=2, n_B=2, size=(40, 32))

    def run(program: str, *arguments: str) -> None:
        line = command(program, "--dataroot", "data", "--name", "run", *arguments)
        ended = subprocess.run(line, env=like_windows, cwd=tmp_path, capture_output=True, text=True)
        assert (ended.returncode, ended.stderr) == (0, "")

    run("train.py", *RUN, *TWO_EPOCHS, "--num_threads", "1")
    run("train.py", *RUN, "--n_epochs", "2", "--continue_train", "--cache", "--num_threads", "0")
    run("test.py", "--phase", "train", "--num_threads", "0")
    assert len(list((tmp_path / "results" / "run" / "train_latest" / "images" / "fake_B").iterdir())) == 2


def test_the_lock_of_windows_refuses_a_second_owner(tmp_path: Path, like_windows: dict[str, str], root: Path) -> None:
    inner = "from pathlib import Path; from util.dir_lock import lock_dir\nwith lock_dir(Path('run'), '--name'): pass"
    outer = f"import subprocess, sys\n{inner[:-4]} sys.exit(subprocess.call([sys.executable, '-c', sys.argv[1]]))"
    environment = like_windows | {"PYTHONPATH": f"{like_windows['PYTHONPATH']}{os.pathsep}{root}"}
    line = [sys.executable, "-c", outer, inner]
    ended = subprocess.run(line, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert "UserError: run: in use by process " in ended.stderr
    assert ended.returncode == 1


def test_the_download_starts_without_fcntl(tmp_path: Path, like_windows: dict[str, str], root: Path) -> None:
    line = [sys.executable, str(root / "datasets" / "download.py"), "http://127.0.0.1:9/none.zip", "none"]
    more = {"CUT_DOWNLOAD_TRIES": "1"}
    ended = subprocess.run(line, env=like_windows | more, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "no locks" not in ended.stderr


@pytest.mark.parametrize("name", ["a/con.jpg", "a:b.jpg", "a?.png", "a/b./c.png"])
def test_an_archive_with_names_that_windows_refuses_is_refused_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    members = [ArchiveMember(Path(name), 0, is_dir=True, open=lambda: None)]
    unpack(members, tmp_path / "linux")
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(ArchiveError, match="a name that is invalid on Windows"):
        unpack(members, tmp_path / "windows")
    assert not (tmp_path / "windows").exists()


def test_a_save_that_stops_between_two_files_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["--netG", "resnet_4blocks", "--ngf", "1", "--ndf", "1", "--gpu_ids", "-1"]
    opt = TrainOptions().parse([*command, "--model", "cycle_gan", "--checkpoints_dir", str(tmp_path), "--name", "run"])
    model = create_model(opt)
    checkpointer(model).save("latest")
    for network in model.networks.values():
        for parameter in network.parameters():
            parameter.data += 1
    at_once, held = Path.replace, tmp_path / "run" / "latest_net_G_A.pth"

    def replace(source: Path, target: Path) -> Path:
        if target == held:  # another program has it open
            raise PermissionError(errno.EACCES, "Access is denied", str(source))
        return at_once(source, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(PermissionError):
        checkpointer(model).save("latest")
    monkeypatch.undo()
    assert has_partial_file(held)
    resumed = create_model(opt)
    assert checkpointer(resumed).resume()
    exported = create_model(opt)
    exported.load_networks("latest")
    for name, network in model.networks.items():
        found = exported.networks[name].state_dict()
        assert all(torch.equal(tensor, found[key]) for key, tensor in network.state_dict().items())
