"""The script that downloads the released weights: files are put below checkpoints/ and never unpickled."""

import pickle
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from archive_server import ArchiveServer, run_script, tar_of

SCRIPT = Path(__file__).parents[2] / "scripts" / "download_pretrained_models.sh"


class Trap:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.fixture
def server() -> Iterator[ArchiveServer]:
    with ArchiveServer() as server:
        yield server


@pytest.fixture
def weights(tmp_path: Path) -> dict[str, bytes]:
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    return {f"{run}_pretrained/latest_net_G.pth": trap for run in ("cat2dog_cut", "horse2zebra_fastcut")}


def run(server: ArchiveServer, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    places = {"CUT_PRETRAINED_URL": f"{server.url}/models.tar", "CUT_CHECKPOINTS_DIR": folder}
    return run_script(SCRIPT, *arguments, **places)


def found(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("[!.]*/*")}


@pytest.mark.parametrize("top", ["checkpoints/", "./checkpoints/", "", "./"])
def test_runs_are_put_below_checkpoints(server: ArchiveServer, weights: dict[str, bytes], tmp_path: Path, top: str) -> None:
    server.files["/models.tar"] = tar_of({f"{top}{name}": content for name, content in weights.items()})
    first = run(server, tmp_path / "checkpoints")
    assert first.returncode == 0, first.stderr
    assert found(tmp_path / "checkpoints") == weights
    again = run(server, tmp_path / "checkpoints")
    assert again.returncode == 0
    assert "already" in again.stdout
    assert len(server.asked) == 1
    assert not (tmp_path / "sprung").exists(), "weights were unpickled"


def test_an_existing_run_is_kept(server: ArchiveServer, weights: dict[str, bytes], tmp_path: Path) -> None:
    server.files["/models.tar"] = tar_of(weights)
    mine = tmp_path / "cat2dog_cut_pretrained" / "latest_net_G.pth"
    mine.parent.mkdir()
    mine.write_bytes(b"mine")
    result = run(server, tmp_path)
    assert result.returncode == 0
    assert "is kept" in result.stdout
    assert found(tmp_path) == weights | {"cat2dog_cut_pretrained/latest_net_G.pth": b"mine"}


def test_a_run_that_was_removed_is_fetched_again(server: ArchiveServer, weights: dict[str, bytes], tmp_path: Path) -> None:
    server.files["/models.tar"] = tar_of(weights)
    run(server, tmp_path)
    (tmp_path / "cat2dog_cut_pretrained").rename(tmp_path.parent / f"{tmp_path.name} elsewhere")
    assert run(server, tmp_path).returncode == 0
    assert found(tmp_path) == weights


def test_a_lost_connection_is_resumed(server: ArchiveServer, weights: dict[str, bytes], tmp_path: Path) -> None:
    server.files["/models.tar"] = tar_of(weights)
    server.cuts = [1000]
    assert run(server, tmp_path).returncode == 1
    assert found(tmp_path) == {}
    assert run(server, tmp_path).returncode == 0
    assert server.asked == [None, "bytes=1000-"]
    assert found(tmp_path) == weights


@pytest.mark.parametrize("archive", [tar_of({"checkpoints/notes.txt": b"no run"}), tar_of({"checkpoints/../x/y": b""})])
def test_an_archive_without_runs_or_with_paths_outside_is_refused(
    server: ArchiveServer, tmp_path: Path, archive: bytes
) -> None:
    server.files["/models.tar"] = archive
    result = run(server, tmp_path / "checkpoints")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("error: archive from ")
    assert found(tmp_path / "checkpoints") == {}


def test_a_missing_file_is_one_line(server: ArchiveServer, tmp_path: Path) -> None:
    result = run(server, tmp_path)
    assert result.returncode == 1
    assert "404" in result.stderr.splitlines()[-1]


def test_help_and_wrong_usage(server: ArchiveServer, tmp_path: Path) -> None:
    assert run(server, tmp_path, "--help").returncode == 0
    assert run(server, tmp_path, "horse2zebra").returncode == 2
    assert server.asked == []
