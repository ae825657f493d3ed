"""Results folders of test.py: complete or absent, one per generator and folder of images, and never read as input."""

import importlib.util
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from generators import checkpoint
from image_factory import fill, noise, two_domains
from page_reader import read_page
from PIL import Image
from programs import run, succeed

from data.image_folder import list_images
from scripts.evaluate import evaluate, parse
from util.errors import UserError
from util.files import sha256
from util.html.page_record import check_complete, read_record
from util.html.results_page import ResultsPage, remove_leftovers

NETWORK = ["--model", "test", "--netG", "resnet_4blocks", "--ngf", "4", "--preprocess", "none", "--name", "run"]
SPEC = importlib.util.spec_from_file_location("test_program", Path(__file__).resolve().parents[2] / "test.py")
program = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(program)

RECORD = {"direction": "AtoB", "phase": "test", "dataroot": "/data", "source": "/data/testA", "target": "/data/testB"}
FILE_EVENTS = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "open")


def write_page(folder: Path, shade: float, names: str) -> None:
    """Write a results page with one image of this shade, in [-1, 1], per letter of `names`."""
    with ResultsPage(folder, "cats", Path("/data/testA"), {}, record=RECORD) as page:
        for name in names:
            page.add(f"/data/testA/{name}.jpg", {"fake_B": torch.full((1, 3, 4, 4), shade)})
        page.save()


def translate(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run test.py in this process. Return what it printed."""
    capfd.readouterr()
    program.test(program.parse_with_saved_options([*NETWORK, "--gpu_ids", "-1", "--num_threads", "0", *arguments]))
    return capfd.readouterr().out


def shown(folder: Path) -> dict[str, int]:
    """Return the gray values of a complete page by name. Raise UserError if it is incomplete."""
    check_complete(folder)
    shades = {file.stem: int(np.asarray(Image.open(file)).flat[0]) for file in folder.glob("images/fake_B/*.png")}
    assert [f"{name}.jpg" for name in sorted(shades)] == sorted(read_page(folder / "index.html").text_of("h2"))
    assert set(read_record(folder)["inputs"]) == {f"{name}.png" for name in shades}
    return shades


def killed_at(event_number: int, folder: Path) -> bool:
    """Write the new page in a process that kills itself at this file operation. Return False if it ended before."""
    pid = os.fork()
    if pid == 0:
        events = iter(range(event_number))

        def kill(event: str, arguments: tuple) -> None:
            if event in FILE_EVENTS and next(events, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(kill)
        write_page(folder, 1.0, "bc")
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_a_page_killed_at_any_moment_is_complete_or_absent(tmp_path: Path) -> None:
    older, newer = {"a": 0, "b": 0}, {"b": 255, "c": 255}
    seen, recovered, event_number, was_killed = [], [], 0, True
    while was_killed:
        folder = tmp_path / str(event_number)
        write_page(folder, -1.0, "ab")
        (folder / "images/own.txt").write_text("mine")
        was_killed = killed_at(event_number, folder)
        try:
            seen.append(shown(folder))
        except UserError as error:
            assert "no index.html, so the results may be incomplete" in str(error)
            seen.append({})
        remove_leftovers(folder, alone=True)  # as the next test does
        recovered.append(shown(folder))
        assert sorted(file.name for file in folder.iterdir()) == ["images", "index.html", "page.json"]
        assert (folder / "images/own.txt").read_text() == "mine"
        event_number += 1

    def stages(states: list[dict[str, int]]) -> list[dict[str, int]]:
        return [state for state, before in zip(states, [None, *states], strict=False) if state != before]

    assert stages(seen) == [older, {}, newer], "the older page, briefly none, the newer page"
    assert stages(recovered) == [older, newer], "the next test completes the move"


def test_a_test_that_ends_half_way_leaves_the_older_results(tmp_path: Path) -> None:
    checkpoint(tmp_path / "checkpoints/run")
    images = fill(tmp_path / "photos", 3, (24, 24))
    succeed(tmp_path, "test.py", *NETWORK, "--dataroot", "photos")
    folder = tmp_path / "results/run/photos_latest"
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    noise(24, 24, seed=9).save(images[0])
    noise(2, 2).save(images[2])  # the network cannot process it: the test ends after two images
    assert run(tmp_path, "test.py", *NETWORK, "--dataroot", "photos").returncode == 2
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before
    assert sorted(file.name for file in folder.iterdir()) == ["images", "index.html", "page.json"]


def test_generators_and_folders_have_results_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for suffix in ("_A", "_B"):
        checkpoint(tmp_path / "checkpoints/run", file=f"latest_net_G{suffix}.pth")
    two_domains(tmp_path / "data", "test", n_A=1, n_B=2, size=(24, 24))
    fill(tmp_path / "photos", 3, (24, 24))
    for suffix in ("_A", "_B"):
        translate(capfd, "--dataroot", "data", "--model_suffix", suffix)
    translate(capfd, "--dataroot", "photos", "--model_suffix", "_A")
    again = translate(capfd, "--dataroot", "data", "--model_suffix", "_B", "--num_test", "1")

    results = tmp_path / "results/run"
    counts = {folder.name: len(list(folder.glob("images/fake_B/*.png"))) for folder in results.iterdir()}
    assert counts == {"test_latest": 1, "test_latest_G_B": 1, "photos_latest": 3}
    assert (
        "at its end, this test replaces results/run/test_latest_G_B: "
        f"2 results of {tmp_path.resolve() / 'data/testB'}, translated by latest_net_G_B.pth\n"
    ) in again
    record = json.loads((results / "test_latest_G_B/page.json").read_text())
    weights = tmp_path / "checkpoints/run/latest_net_G_B.pth"
    assert (record["direction"], record["source"], record["target"]) == (
        *("BtoA", str(tmp_path.resolve() / "data/testB"), str(tmp_path.resolve() / "data/testA")),
    )
    assert (record["images"], record["results"], record["sizes"]) == (2, 1, {"24x24": 1})
    assert record["weights"] == [{"network": "G_B", "file": str(weights.resolve()), "sha256": sha256(weights)}]
    assert record["inputs"] == {"00.png": {"file": "00.png", "sha256": sha256(tmp_path / "data/testB/00.png")}}
    assert (record["preprocess"], record["load_size"], record["crop_size"]) == ("none", 256, 256)


def test_a_program_does_not_read_its_own_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Results, of this and of earlier releases, and the pages of trainings are left out, at any depth."""
    photos = tmp_path / "photos"
    fill(photos, 3)
    write_page(photos / "sub/results/run/test_latest", 0.0, "ab")
    shutil.copytree(photos / "sub/results/run/test_latest", photos / "old")
    (photos / "old/page.json").unlink()
    fill(photos / "checkpoints/run/web/images", 2)
    (photos / "checkpoints/run/loss_log.txt").write_text("")
    fill(photos / "gallery/images", 1)
    (photos / "gallery/index.html").write_text("of someone else")
    assert len(list_images(str(photos))) == 3 + 1
    told = capsys.readouterr().out
    assert f"{photos}: 6 images are not read, because train.py or test.py wrote their folders: " in told
    assert len(list_images(str(photos / "old/images/fake_B"))) == 2, "if asked for by name"
    for mixed in ("old", "old/images"):
        with pytest.raises(
            UserError, match=r"a page of this program\. Give one folder of its images, such as images/fake_B"
        ):
            list_images(str(photos / mixed))


def test_results_below_the_dataroot_do_not_add_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint(tmp_path / "photos/runs/run")
    fill(tmp_path / "photos", 2, (24, 24))
    known = ["--dataroot", "photos", "--checkpoints_dir", "photos/runs", "--results_dir", "photos/results"]
    assert "2 of 2 images" in translate(capfd, *known)
    again = translate(capfd, *known)
    assert "2 of 2 images" in again and "photos: 4 images are not read" in again


def test_linked_folders_of_a_dataset_keep_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint(tmp_path / "checkpoints/run")
    Path("data").mkdir()
    for domain in "AB":
        fill(tmp_path / f"photos {domain}", 2, (24, 24))
        Path(f"data/test{domain}").symlink_to(tmp_path / f"photos {domain}")
    translate(capfd, "--dataroot", "data")
    record = read_record(Path("results/run/test_latest"))
    assert (record["source"], record["target"]) == (str(tmp_path / "data/testA"), str(tmp_path / "data/testB"))
    for arguments in ([], ["--dataroot", "data"]):
        evaluate(parse(["--results", "results/run/test_latest", "--paired", "--gpu_ids", "-1", *arguments]))
        assert f"against 2 images of {record['target'] if not arguments else 'data/testB'}" in capfd.readouterr().out
