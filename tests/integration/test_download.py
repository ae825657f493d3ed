"""The download script with a real server: lost, silent and refused connections, changed files, two commands at once."""

import errno
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from archive_server import ArchiveServer, clean_environment, run_script, zip_of

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "datasets" / "download_cut_dataset.sh"
IMAGES = {f"mini/train{half}/{i}.jpg": random.Random(i).randbytes(20_000) for half in "AB" for i in range(3)}
CHANGED = {name: content[::-1] for name, content in IMAGES.items()}
SHORT = {"mini/trainA/0.jpg": b"short"}
WHOLE = zip_of(IMAGES)

Fetch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def server() -> Iterator[ArchiveServer]:
    with ArchiveServer() as server:
        server.files["/mini.zip"] = WHOLE
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "datasets"


@pytest.fixture
def fetch(server: ArchiveServer, folder: Path) -> Fetch:
    def fetch(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        places = {"CUT_DATASETS_URL": server.url, "CUT_DATASETS_DIR": folder}
        run = run_script(SCRIPT, *arguments, **(places | environment))
        assert "Traceback" not in run.stderr
        return run

    return fetch


def part(folder: Path) -> Path:
    return folder / ".downloads" / "mini" / "archive"


def visible(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("[!.]*")]


def assert_whole(folder: Path, archive: dict[str, bytes] = IMAGES) -> None:
    found = {str(path.relative_to(folder)): path.read_bytes() for path in (folder / "mini").rglob("*.jpg")}
    assert found == archive
    assert visible(folder) == ["mini"]
    assert [path.name for path in part(folder).parent.iterdir()] == ["lock"], "files are left"


def assert_nothing_but_a_part(folder: Path, size: int) -> None:
    assert visible(folder) == []
    assert part(folder).stat().st_size == size


def test_a_dataset_is_downloaded(fetch: Fetch, folder: Path) -> None:
    run = fetch("mini")
    assert run.returncode == 0, run.stderr
    assert_whole(folder)
    assert f"of {len(WHOLE) / 1e6:.1f} MB, 100 %" in run.stderr
    assert str(folder / "mini") in run.stdout


def test_a_second_run_reports_that_it_exists(fetch: Fetch, server: ArchiveServer, folder: Path) -> None:
    fetch("mini")
    again = fetch("mini")
    assert again.returncode == 0
    assert "already exists" in again.stdout
    assert len(server.asked) == 1
    assert_whole(folder)


def test_an_archive_without_a_top_folder_becomes_the_dataset(fetch: Fetch, server: ArchiveServer, folder: Path) -> None:
    server.files["/mini.zip"] = zip_of({name.removeprefix("mini/"): content for name, content in IMAGES.items()})
    assert fetch("mini").returncode == 0
    assert_whole(folder)


def test_what_macos_adds_to_a_zip_is_left_out(fetch: Fetch, server: ArchiveServer, folder: Path) -> None:
    server.files["/mini.zip"] = zip_of(IMAGES | {"__MACOSX/mini/trainA/._0.jpg": b"no image"})
    assert fetch("mini").returncode == 0
    assert_whole(folder)


def test_a_lost_connection_is_resumed(fetch: Fetch, server: ArchiveServer, folder: Path) -> None:
    server.cuts = [30_000]
    run = fetch("mini", CUT_DOWNLOAD_TRIES="2")
    assert run.returncode == 0, run.stderr
    assert "trying again" in run.stderr
    assert server.asked == [None, "bytes=30000-"]
    assert_whole(folder)


def test_a_later_command_resumes_the_download(fetch: Fetch, server: ArchiveServer, folder: Path) -> None:
    server.cuts = [30_000]
    first = fetch("mini")
    assert first.returncode == 1
    assert "after 30000 of" in first.stderr
    assert "are kept" in first.stderr
    assert_nothing_but_a_part(folder, 30_000)
    assert fetch("mini").returncode == 0
    assert server.asked == [None, "bytes=30000-"]
    assert_whole(folder)


def test_a_server_without_ranges_sends_the_whole_file(fetch: Fetch, server: ArchiveServer, folder: Path) -> None:
    server.knows_ranges = False
    server.cuts = [30_000, 20_000]
    fetch("mini")
    fetch("mini")
    assert_nothing_but_a_part(folder, 20_000)
    assert fetch("mini").returncode == 0
    assert_whole(folder)


@pytest.mark.parametrize("minds_if_range, repeats_tag", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("files", [CHANGED, SHORT], ids=["as long", "shorter than the part"])
def test_a_file_that_changed_meanwhile_is_not_glued_to_the_old_part(
    fetch: Fetch,
    server: ArchiveServer,
    folder: Path,
    minds_if_range: bool,
    repeats_tag: bool,
    files: dict[str, bytes],
) -> None:
    server.minds_if_range, server.repeats_tag = minds_if_range, repeats_tag
    server.cuts = [30_000]
    fetch("mini")
    server.files["/mini.zip"] = zip_of(files)
    run = fetch("mini")
    assert run.returncode == 0, run.stderr
    assert_whole(folder, files)


def test_a_part_from_one_address_is_not_continued_from_another(fetch: Fetch, server: ArchiveServer, folder: Path) -> None:
    server.cuts = [30_000]
    fetch("mini")
    server.files["/mirror/mini.zip"] = zip_of(CHANGED)
    assert fetch("mini", CUT_DATASETS_URL=f"{server.url}/mirror/").returncode == 0
    assert server.asked == [None, None]
    assert_whole(folder, CHANGED)


def test_a_complete_archive_is_not_fetched_again_after_a_kill(fetch: Fetch, server: ArchiveServer, folder: Path) -> None:
    server.cuts = [30_000]
    fetch("mini")
    part(folder).write_bytes(WHOLE)  # all came, and the command was killed before it unpacked
    leftover = part(folder).parent / "unpacked" / "mini" / "trainA"
    leftover.mkdir(parents=True)
    (leftover / "half.jpg").write_bytes(b"half")
    assert fetch("mini").returncode == 0
    assert len(server.asked) == 1
    assert_whole(folder)


def test_a_busy_server_is_asked_again(fetch: Fetch, server: ArchiveServer, folder: Path) -> None:
    server.statuses = [503]
    assert fetch("mini", CUT_DOWNLOAD_TRIES="2").returncode == 0
    assert_whole(folder)


def test_a_missing_file_is_one_line(fetch: Fetch, server: ArchiveServer, folder: Path) -> None:
    run = fetch("maps", CUT_DOWNLOAD_TRIES="3")
    assert run.returncode == 1
    said = run.stderr.splitlines()
    assert said[0] == f"downloading {server.url}/maps.zip"
    assert len(said) == 2
    assert f"{server.url}/maps.zip: the server answered 404 Not Found" in said[1]
    assert "mirror" in said[1]
    assert len(server.asked) == 1
    assert visible(folder) == []


def test_an_unreachable_server_is_one_line(fetch: Fetch, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    run = fetch("mini", CUT_DATASETS_URL=f"http://127.0.0.1:{port}")
    assert run.returncode == 1
    assert run.stderr.splitlines()[1:] == [
        f"error: http://127.0.0.1:{port}/mini.zip: download failed, Connection refused. Try again later."
    ]
    assert visible(folder) == []


def test_a_silent_connection_is_given_up(fetch: Fetch, server: ArchiveServer, folder: Path) -> None:
    server.stall_after = 30_000
    run = fetch("mini", CUT_DOWNLOAD_STALL_SECONDS="0.3")
    assert run.returncode == 1
    assert "no data for 0.3 s" in run.stderr
    assert_nothing_but_a_part(folder, 30_000)


def test_a_file_without_a_stated_length_is_fetched(fetch: Fetch, server: ArchiveServer, folder: Path) -> None:
    server.tells_length = False
    assert fetch("mini").returncode == 0
    assert_whole(folder)


@pytest.mark.parametrize("tells_length", [True, False])
def test_a_file_above_the_limit_is_refused(fetch: Fetch, server: ArchiveServer, folder: Path, tells_length: bool) -> None:
    server.tells_length = tells_length
    run = fetch("mini", CUT_SIZE_LIMIT_GB="0.00005")
    assert run.returncode == 1
    assert "at least" in run.stderr
    assert "CUT_SIZE_LIMIT_GB" in run.stderr
    assert visible(folder) == []
    assert part(folder).stat().st_size == 0 or not tells_length, "downloaded although the length was known"


def test_a_proxy_from_the_environment_is_used(fetch: Fetch, server: ArchiveServer, folder: Path) -> None:
    run = fetch("mini", CUT_DATASETS_URL="http://mirror.invalid", http_proxy=server.url)
    assert run.returncode == 0, run.stderr
    assert server.paths == ["http://mirror.invalid/mini.zip"]
    assert_whole(folder)


def started(server: ArchiveServer, folder: Path) -> subprocess.Popen[str]:
    """Start the script as the leader of its own process group."""
    environment = clean_environment({"CUT_DATASETS_URL": server.url, "CUT_DATASETS_DIR": folder})
    return subprocess.Popen(
        ["bash", str(SCRIPT), "mini"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a CI's shell may ignore it
    )


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_ctrl_c_keeps_the_partial_download(fetch: Fetch, server: ArchiveServer, folder: Path) -> None:
    server.stall_after = 1_000
    running = started(server, folder)
    wait_for(lambda: part(folder).exists() and part(folder).stat().st_size == 1_000)
    os.killpg(running.pid, signal.SIGINT)
    _, said = running.communicate(timeout=30)
    assert running.returncode == 130
    assert [line for line in said.splitlines() if "interrupted" in line] == said.splitlines()[-1:]
    assert "Traceback" not in said
    assert_nothing_but_a_part(folder, 1_000)
    server.stall_after = None
    assert fetch("mini").returncode == 0
    assert server.asked == [None, "bytes=1000-"]
    assert_whole(folder)


def test_two_commands_at_once_fetch_it_once(server: ArchiveServer, folder: Path) -> None:
    server.stall_after = 30_000
    first = started(server, folder)
    wait_for(lambda: bool(server.asked))
    second = started(server, folder)
    assert second.stderr is not None
    assert "waiting" in second.stderr.readline()
    server.go_on.set()
    assert first.wait(30) == 0
    assert second.wait(30) == 0
    assert len(server.asked) == 1
    assert_whole(folder)


def test_a_file_system_without_locks_works(server: ArchiveServer, folder: Path) -> None:
    code = (
        "import errno, fcntl, runpy, sys\n"
        "def flock(*arguments): raise OSError(errno.ENOLCK, 'No locks available')\n"
        "fcntl.flock = flock\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "runpy.run_path(sys.argv.pop(1) + '/download.py', run_name='__main__')\n"
    )
    command = [sys.executable, "-c", code, str(SCRIPT.parent), f"{server.url}/mini.zip", str(folder / "mini")]
    run = subprocess.run(command, env=clean_environment({}), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "no locks" in run.stderr
    assert_whole(folder)


@pytest.mark.parametrize("place", ["a folder with files", "a file"])
def test_existing_files_are_not_changed(fetch: Fetch, server: ArchiveServer, folder: Path, place: str) -> None:
    folder.mkdir()
    mine = folder / "mini" / "mine.jpg" if place == "a folder with files" else folder / "mini"
    mine.parent.mkdir(exist_ok=True)
    mine.write_bytes(b"mine")
    run = fetch("mini")
    assert run.returncode == 0
    assert "already exists" in run.stdout
    assert mine.read_bytes() == b"mine"
    assert server.asked == []


def test_an_empty_folder_is_filled(fetch: Fetch, folder: Path) -> None:
    (folder / "mini").mkdir(parents=True)
    assert fetch("mini").returncode == 0
    assert_whole(folder)


def test_a_folder_that_cannot_be_written_is_named(fetch: Fetch, folder: Path) -> None:
    folder.write_bytes(b"")
    run = fetch("mini")
    assert run.returncode == 1
    assert run.stderr.splitlines() == [f"error: {os.strerror(errno.ENOTDIR)}: {part(folder).parent}"]


def test_a_disk_that_fills_up_keeps_the_part(fetch: Fetch, server: ArchiveServer, folder: Path) -> None:
    places = {"CUT_DATASETS_URL": server.url, "CUT_DATASETS_DIR": folder}
    limited = ["bash", "-c", f"ulimit -f 20; exec bash '{SCRIPT}' mini"]  # no file above 20 KiB
    run = subprocess.run(limited, env=clean_environment(places), capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1] == f"error: {os.strerror(errno.EFBIG)}: {folder / 'mini'}"
    assert_nothing_but_a_part(folder, 20 * 1024)
    assert fetch("mini").returncode == 0
    assert server.asked == [None, "bytes=20480-"]
    assert_whole(folder)


@pytest.mark.parametrize("arguments", [(), ("mini", "maps"), ("nosuchset",), ("mini maps",), ("*",), ("cityscapes",)])
def test_wrong_usage_has_status_2_and_fetches_nothing(
    fetch: Fetch, server: ArchiveServer, arguments: tuple[str, ...]
) -> None:
    run = fetch(*arguments)
    assert run.returncode == 2
    assert ("prepare_cityscapes_dataset.py" if arguments == ("cityscapes",) else "horse2zebra") in run.stderr
    assert server.asked == []


def test_help_lists_the_names_and_the_variables(fetch: Fetch) -> None:
    run = fetch("--help")
    assert run.returncode == 0
    for word in ("grumpifycat", "vangogh2photo", "CUT_DATASETS_URL", "CUT_DATASETS_DIR", "CUT_SIZE_LIMIT_GB", "130"):
        assert word in run.stdout


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CUT_DOWNLOAD_STALL_SECONDS", "soon"),
        ("CUT_DOWNLOAD_TRIES", "0"),
        ("CUT_SIZE_LIMIT_GB", "-1"),
        ("CUT_SIZE_LIMIT_GB", "nan"),
        ("CUT_SIZE_LIMIT_GB", "inf"),
    ],
)
def test_a_variable_that_is_no_number_has_status_2(fetch: Fetch, server: ArchiveServer, variable: str, value: str) -> None:
    run = fetch("mini", **{variable: value})
    assert run.returncode == 2
    assert variable in run.stderr
    assert server.asked == []


@pytest.mark.parametrize("address", ["file:///etc", "mirror", "http://[::1", "http://127.0.0.1:port", "http://"])
def test_an_invalid_address_is_one_line(fetch: Fetch, address: str) -> None:
    run = fetch("mini", CUT_DATASETS_URL=address)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith("error: ")


def test_it_runs_from_anywhere_without_the_virtual_environment(server: ArchiveServer, tmp_path: Path) -> None:
    checkout = tmp_path / "a checkout"
    shutil.copytree(ROOT / "datasets", checkout / "datasets", ignore=shutil.ignore_patterns("*/"))
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')  # -S: no installed packages
    (bin_folder / "python3").chmod(0o755)
    environment = clean_environment({"CUT_DATASETS_URL": server.url, "PATH": f"{bin_folder}:{os.environ['PATH']}"})
    del environment["PYTHON"]
    command = ["bash", str(checkout / "datasets" / SCRIPT.name), "mini"]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert (checkout / "datasets" / "mini" / "trainA" / "0.jpg").exists()
