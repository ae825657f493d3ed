"""The comparison page, written by scripts/compare.py from results pages."""

import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from page_reader import linked_file, read_page
from PIL import Image
from programs import opened_pages, recording_browser

from util.html.comparison_page import write_comparison
from util.html.results_page import ResultsPage

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/compare.py"


def compare(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        cwd=folder,
        env=os.environ | recording_browser(folder),
        capture_output=True,
        text=True,
        timeout=120,
    )


def results(folder: Path, shades: dict[str, float], title: str = "") -> None:
    """Write a results page whose translations have one gray value in [-1, 1] each."""
    page = ResultsPage(folder, title or folder.parent.name, Path("/data/testA"), {"phase": "test"})
    for name, shade in shades.items():
        page.add(f"/data/testA/{name}", {"real_A": torch.ones(1, 3, 4, 6), "fake_B": torch.full((1, 3, 4, 6), shade)})
    page.save()


def rows(page: Path) -> dict[str, list[tuple[str, int]]]:
    """Return the captions and gray values of the images in each row."""
    read = read_page(page)
    images = []
    for caption, link in zip(read.text_of("figcaption"), read.attributes("img", "src"), strict=True):
        with Image.open(linked_file(page, link)) as image:
            images.append((caption, image.convert("L").getpixel((0, 0))))
    starts = [index for index, (caption, _) in enumerate(images) if caption == "input"] + [len(images)]
    return dict(zip(read.text_of("h2"), (images[a:b] for a, b in pairwise(starts)), strict=True))


def test_runs_are_shown_side_by_side_on_the_same_inputs(tmp_path) -> None:
    results(tmp_path / "results/it's <b>/test_latest", {"a.jpg": -1, "sub/b #1.jpg": -1})
    results(tmp_path / "results/fast/test_5", {"sub/b #1.jpg": 0, "c.jpg": 0})
    (tmp_path / "truth").mkdir()
    Image.new("RGB", (6, 4), (9, 9, 9)).save(tmp_path / "truth/a.jpg")
    done = compare(tmp_path, "results/it's <b>/test_latest", "results/fast/test_5", "--truth", "truth", "--open")
    assert (done.returncode, done.stderr) == (0, "")
    page = tmp_path / "results/comparison/index.html"
    assert str(page.relative_to(tmp_path)) in done.stdout
    assert opened_pages(tmp_path) == [page.as_uri()]
    assert rows(page) == {
        "a.png": [("input", 255), ("it's <b>", 0), ("ground truth", 9)],
        "c.png": [("input", 255), ("fast", 127)],
        "sub/b #1.png": [("input", 255), ("it's <b>", 0), ("fast", 127)],
    }


def test_results_that_a_png_cannot_hold_are_shown_by_their_views(tmp_path) -> None:
    class Tiff:
        suffix = ".tif"

        def write(self, path: Path) -> None:
            Image.new("I;16", (6, 4), 40000).save(path)

    for name, shade in (("cut", 0.0), ("fast", -1.0)):
        page = ResultsPage(tmp_path / name / "test_latest", name, Path("/data/testA"), {"phase": "test"})
        visuals = {"real_A": torch.ones(1, 3, 4, 6), "fake_B": torch.full((1, 3, 4, 6), shade)}
        page.add("/data/testA/a.tif", visuals, {"real_A": Tiff(), "fake_B": Tiff()})
        page.save()
    (tmp_path / "truth").mkdir()
    np.save(tmp_path / "truth/a.npy", np.full((4, 6, 5), 7, np.uint8))
    done = compare(tmp_path, "cut/test_latest", "fast/test_latest", "--truth", "truth")
    assert (done.returncode, done.stderr) == (0, "")
    (row,) = rows(tmp_path / "results/comparison/index.html").values()
    assert row == [("input", 255), ("cut", 127), ("fast", 0), ("ground truth", 7)]


def test_names_of_the_ground_truth_may_differ(tmp_path) -> None:
    results(tmp_path / "cut/test_1", {"1_A.jpg": 0, "12:30.jpg": 0, "alone.jpg": 0})
    (tmp_path / "truth").mkdir()
    for name in ("1_B.jpg", "12:30.bmp"):
        Image.new("RGB", (6, 4), (9, 9, 9)).save(tmp_path / "truth" / name)
    (tmp_path / "truth/alone.txt").write_text("not an image")
    done = compare(tmp_path, "cut/test_1", "--truth", "truth")
    assert (done.returncode, done.stderr) == (0, "")
    assert "pairs: 2 of 3 matched\n" in done.stdout
    shown = rows(tmp_path / "results/comparison/index.html")
    assert [name for name, images in shown.items() if ("ground truth", 9) in images] == ["12_30.png", "1_A.png"]

    (tmp_path / "truth/12:30.bmp").rename(tmp_path / "truth/1_B.png")
    done = compare(tmp_path, "cut/test_1", "--truth", "truth")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "ambiguous pair: '1_A' could belong to '1_B.jpg' or '1_B.png'" in done.stderr


def test_a_ground_truth_of_other_images_is_an_error(tmp_path) -> None:
    results(tmp_path / "cut/test_1", {"a.jpg": 0})
    (tmp_path / "truth").mkdir()
    Image.new("RGB", (6, 4)).save(tmp_path / "truth/b.jpg")
    done = compare(tmp_path, "cut/test_1", "--truth", "truth")
    assert (done.returncode, done.stdout) == (2, "pairs: 0 of 1 matched\n")
    assert "--truth: no image belongs to a result such as a.png" in done.stderr


def photo(path: Path, shade: int, size: tuple[int, int] = (6, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, shade, shade)).save(path)
    return path


def write_results(folder: Path, photos: list[Path], shade: float, side: int = 4, is_recorded: bool = True) -> None:
    """Write a results page of these inputs at this size, with `page.json` or, as in earlier releases, without."""
    record = {"direction": "AtoB", "phase": "test", "dataroot": "", "source": str(photos[0].parent), "target": None}
    with ResultsPage(folder, folder.parent.name, photos[0].parent, {}, record=record if is_recorded else None) as page:
        for path in photos:
            pixel = (Image.open(path).getpixel((0, 0))[0] + 0.5) / 127.5 - 1
            visuals = {"real_A": torch.full((1, 3, side, side), pixel), "fake_B": torch.full((1, 3, side, side), shade)}
            page.add(str(path), visuals)
        page.save()


@pytest.mark.parametrize("is_recorded", [True, False])
def test_results_of_other_images_with_the_same_name_are_separated(tmp_path: Path, is_recorded: bool) -> None:
    one, two, three = (
        [photo(tmp_path / folder / "a.png", shade), photo(tmp_path / folder / "b.png", 9)]
        for folder, shade in (("one", 30), ("two", 60), ("copy of one", 30))
    )
    for name, photos, shade in (("x", one, -1.0), ("y", two, 0.0), ("z", three, 1.0)):
        write_results(tmp_path / "results" / name / "test_1", photos, shade, is_recorded=is_recorded)
    photo(tmp_path / "truth/a.jpg", 1)
    photo(tmp_path / "truth/b.jpg", 2)
    done = compare(tmp_path, *(f"results/{name}/test_1" for name in "xyz"), "--truth", "truth")
    assert (done.returncode, done.stderr) == (0, "")
    assert "warning: 1 names, such as a.png, are those of different inputs." in done.stdout
    assert rows(tmp_path / "results/comparison/index.html") == {
        "a.png (x, z)": [("input", 30), ("x", 0), ("z", 255)],
        "a.png (y)": [("input", 60), ("y", 127)],
        "b.png": [("input", 9), ("x", 0), ("y", 127), ("z", 255), ("ground truth", 2)],
    }


def test_results_at_other_sizes_are_of_the_same_input(tmp_path: Path) -> None:
    photos = [photo(tmp_path / "photos/a.png", 30)]
    write_results(tmp_path / "x/test_1", photos, -1.0, side=4)
    write_results(tmp_path / "y/test_1", photos, 0.0, side=8)
    assert "warning" not in compare(tmp_path, "x/test_1", "y/test_1").stdout
    assert list(rows(tmp_path / "results/comparison/index.html")) == ["a.png"]


def test_runs_without_a_common_input_are_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results(tmp_path / "x", {"a.jpg": 0})
    results(tmp_path / "y", {"b.jpg": 0})
    for runs, note in (
        ("x", ""),
        ("xy", "warning: no two runs have an input in common. Compare tests of the same images.\n"),
    ):
        write_comparison(tmp_path / "index.html", {name: tmp_path / name for name in runs}, {})
        assert capsys.readouterr().out == note


def test_an_incomplete_page_is_an_error(tmp_path: Path) -> None:
    results(tmp_path / "cut/test_1", {"a.jpg": 0, "b.jpg": 0})
    (tmp_path / "cut/test_1/images/fake_B/b.png").unlink()
    done = compare(tmp_path, "cut/test_1")
    assert done.returncode == 2 and "cut/test_1: incomplete, 1 of 2 images" in done.stderr
    done = compare(tmp_path, "cut")
    assert (
        done.returncode == 2
        and "cut: contains results pages, and is none itself. Give one of them: cut/test_1" in done.stderr
    )


def test_a_comparison_page_can_be_moved_with_its_results(tmp_path) -> None:
    results(tmp_path / "here/results/cut/test_latest", {"a.jpg": 0})
    assert compare(tmp_path / "here", "results/cut/test_latest").returncode == 0
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert rows(tmp_path / "there/results/comparison/index.html") == {"a.png": [("input", 255), ("cut", 127)]}


def test_labels_are_page_titles_or_given(tmp_path) -> None:
    for folder in ("cut/test_1", "cut/test_2", "other/test_1"):
        results(tmp_path / "results" / folder, {"a.jpg": 0})
    results(tmp_path / "results/other/test_2", {"a.jpg": 0}, title="Ours, 400 epochs")

    def shown(*arguments: str) -> list[str]:
        assert compare(tmp_path / "results", *arguments).returncode == 0
        return [caption for caption, _ in rows(tmp_path / "results/results/comparison/index.html")["a.png"]][1:]

    assert shown("cut/test_1", "other/test_2") == ["cut", "Ours, 400 epochs"]
    assert shown("cut/test_1", "cut/test_2") == ["cut test_1", "cut test_2"]
    assert shown("cut/test_1", "cut/test_2", "--labels", "early", "late") == ["early", "late"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such folder."),
        (["cut/test_1", "--labels", "a", "b"], "--labels: expected 1 labels, got 2"),
        (["cut/test_1", "cut/test_1"], "cut/test_1 and cut/test_1: the same folder"),
        (["cut/test_1", "cut/../cut/test_1"], "cut/test_1 and cut/../cut/test_1: the same folder. Give each folder once."),
        (["cut/test_1", "--truth", "nowhere"], "--truth nowhere: not a folder"),
    ],
)
def test_an_error_is_one_line(tmp_path, arguments: list[str], message: str) -> None:
    results(tmp_path / "cut/test_1", {"a.jpg": 0})
    done = compare(tmp_path, *arguments)
    assert (done.returncode, done.stderr[:7]) == (2, "error: "), done
    assert message in done.stderr and done.stderr.count("\n") == 1
