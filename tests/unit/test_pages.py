"""Results pages and training pages, as files and as HTML."""

import base64
import hashlib
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile_files import HOSTILE_NAMES
from page_reader import Page, facts_of, linked_file, read_page
from PIL import Image

from util.html.page import captions as page_captions
from util.html.results_page import ResultsPage
from util.html.training_page import TrainingPage

SCRIPT = Path(__file__).resolve().parents[2] / "util/html/page.js"


def image(shade: float = 0.0, height: int = 4, width: int = 6) -> torch.Tensor:
    return torch.full((1, 3, height, width), shade)


def shade_of(path: Path) -> int:
    with Image.open(path) as image:
        return int(np.asarray(image).flat[0])


def results(tmp_path: Path, sources: list[str], root: Path = Path("/data/testA")) -> tuple[Path, Page]:
    """Write a page with these sources; the n-th image has the gray value n."""
    page = ResultsPage(tmp_path / "results", "cats", root, {"phase": "test", "epoch": "latest"})
    for number, source in enumerate(sources):
        shade = (number + 0.5) / 255 * 2 - 1
        page.add(source, {"real_A": image(shade), "fake_B": image(shade)})
    page.save()
    path = tmp_path / "results" / "index.html"
    return path, read_page(path)


def captions(page: Page) -> list[tuple[str, str]]:
    """Return the caption and the published name of each image."""
    return list(zip(map(str.strip, page.text_of("figcaption")), page.text_of("small"), strict=True))


def test_results_have_the_published_paths_and_the_page_shows_them(tmp_path) -> None:
    path, page = results(tmp_path, ["/data/testA/cat.jpg", "/data/testA/dog.png"])
    assert page.attributes("img", "src") == [
        "images/real_A/cat.png",
        "images/fake_B/cat.png",
        "images/real_A/dog.png",
        "images/fake_B/dog.png",
    ]
    assert page.attributes("a", "href") == page.attributes("img", "src")
    assert page.text_of("h2") == ["cat.jpg", "dog.png"]
    assert captions(page) == [("input", "real_A"), ("translation", "fake_B")] * 2
    assert dict(zip(page.text_of("dt"), page.text_of("dd"), strict=True)) == {
        "phase": "test",
        "epoch": "latest",
        "images": "2",
    }
    assert page.text_of("h1") == ["cats"]
    assert [shade_of(linked_file(path, link)) for link in page.attributes("img", "src")] == [0, 0, 1, 1]


def test_images_are_lazy_and_have_a_size(tmp_path) -> None:
    _, page = results(tmp_path, ["/data/testA/cat.jpg"])
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    assert all((image["loading"], image["width"], image["height"]) == ("lazy", "6", "4") for image in images)


def test_a_page_loads_nothing_and_contains_only_the_projects_script(tmp_path) -> None:
    path, page = results(tmp_path, ["/data/testA/cat.jpg"])
    assert {tag for tag, _ in page.elements}.isdisjoint({"link", "iframe", "object"})
    assert [attributes for tag, attributes in page.elements if tag == "script"] == [{}]
    assert "".join(page.text_of("script")) == SCRIPT.read_text()
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert "://" not in path.read_text()
    assert not [value for _, attributes in page.elements for value in attributes.values() if (value or "").startswith("//")]
    assert "@import" not in path.read_text() and "url(" not in path.read_text()


def test_the_policy_of_a_page_allows_only_its_own_script(tmp_path) -> None:
    _, page = results(tmp_path, ["/data/testA/cat.jpg"])
    (policy,) = (attributes["content"] for _, attributes in page.elements if "http-equiv" in attributes)
    digest = base64.b64encode(hashlib.sha256(SCRIPT.read_bytes()).digest()).decode()
    assert policy == f"script-src 'sha256-{digest}'; object-src 'none'; base-uri 'none'"


@pytest.mark.parametrize(
    "sources",
    [
        ["cat.jpg", "one/cat.jpg", "two/cat.jpg"],
        ["cat.jpg", "cat.png", "cat.tif", "cat.png.jpg"],
        ["cat.png.jpg", "cat.png", "cat.jpg"],
        ["Cat.jpg", "cat.jpg", "CAT.jpg"],
        ["caf\u00e9.jpg", "cafe\u0301.jpg"],
        ["a.png/b.jpg", "a.jpg", "a.PNG/b.jpg"],
        ["a?.jpg", "a*.jpg", "a_.jpg", "a\n.jpg"],
        ["x" * 240 + "1.jpg", "x" * 240 + "2.jpg", "x" * 251 + ".jpg", "x" * 251 + ".png"],
        ["cat.jpg", "cat.jpg", "cat.jpg"],
        ["../../secret/cat.jpg", "/elsewhere/cat.jpg", "/data/testAB/cat.jpg", "cat.jpg"],
    ],
)
def test_every_source_has_its_own_file(tmp_path, sources: list[str]) -> None:
    path, page = results(tmp_path, [f"/data/testA/{source}" if source[0] != "/" else source for source in sources])
    links = page.attributes("img", "src")
    files = [linked_file(path, link) for link in links]
    assert [shade_of(file) for file in files] == sorted([*range(len(sources))] * 2)
    assert len({unicodedata.normalize("NFC", str(file)).casefold() for file in files}) == 2 * len(sources)


def test_subfolders_are_preserved(tmp_path) -> None:
    results(tmp_path, ["/data/testA/sub/folder/cat.jpg"])
    assert (tmp_path / "results/images/fake_B/sub/folder/cat.png").is_file()


def test_a_source_outside_the_root_keeps_only_its_file_name(tmp_path) -> None:
    results(tmp_path, ["/data/testA/../secret/cat.jpg", "/elsewhere/sub/dog.jpg"])
    assert sorted(path.name for path in (tmp_path / "results/images/fake_B").iterdir()) == ["cat.png", "dog.png"]


def test_hostile_names_are_escaped_and_stay_inside_the_folder(tmp_path) -> None:
    path, page = results(tmp_path, [f"/data/testA/{name}" for name in HOSTILE_NAMES])
    written = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(written) == 1 + 2 * len(HOSTILE_NAMES)
    assert {file.parent.relative_to(tmp_path).as_posix() for file in written} == {
        "results",
        *("results/images/real_A", "results/images/real_A/_script_alert(1)_"),  # the slash of </script> separates folders
        *("results/images/fake_B", "results/images/fake_B/_script_alert(1)_"),
    }
    assert {tag for tag, _ in page.elements} == {
        *("html", "head", "title", "meta", "style", "body", "header", "h1", "dl", "div", "dt", "dd"),
        *("main", "article", "h2", "figure", "a", "img", "figcaption", "small"),
        *("script", "label", "input", "output", "button", "dialog", "b", "span", "hr", "select", "p", "kbd"),
    }
    expected = {"src", "alt", "width", "height", "loading", "decoding", "class"}
    assert all(set(attributes) == expected for tag, attributes in page.elements if tag == "img")
    assert all(set(attributes) == {"href"} for tag, attributes in page.elements if tag == "a")
    shown = [linked_file(path, link) for link in page.attributes("img", "src")]
    assert [shade_of(file) for file in shown] == sorted([*range(len(HOSTILE_NAMES))] * 2)
    assert page.text_of("h2")[0] == HOSTILE_NAMES[0]
    assert "100%25.jpg" in page.text_of("h2")
    assert "latin1-\ufffd.jpg" in page.text_of("h2")


def test_relative_roots_and_symbolic_links_keep_their_names(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("data/cat.jpg").symlink_to("/somewhere/17.jpg")
    page = ResultsPage(Path("out"), "cats", Path("data"), {})
    page.add("data/cat.jpg", {"fake_B": image()})
    page.add(str(tmp_path / "data" / "." / "sub" / ".." / "dog.jpg"), {"fake_B": image()})
    page.save()
    assert sorted(file.name for file in Path("out/images/fake_B").iterdir()) == ["cat.png", "dog.png"]


def test_titles_and_facts_are_escaped(tmp_path) -> None:
    title = '</title><script>alert("é")</script>' + os.fsdecode(b"\xff")
    page = ResultsPage(tmp_path, title, Path("/data"), {"<b>": "<i>&"})
    page.save()
    read = read_page(tmp_path / "index.html")
    assert read.text_of("h1") == [title[:-1] + "?"]
    assert read.text_of("dt")[0] == "<b>" and read.text_of("dd")[0] == "<i>&"
    assert "".join(read.text_of("script")) == SCRIPT.read_text()


def test_a_page_is_replaced_atomically(tmp_path) -> None:
    page = ResultsPage(tmp_path, "cats", Path("/data"), {})
    page.save()
    before = (tmp_path / "index.html").read_text()
    (tmp_path / "reader").hardlink_to(tmp_path / "index.html")  # like a browser with the old page open
    page.add("/data/cat.jpg", {"fake_B": image()})
    page.save()
    assert (tmp_path / "reader").read_text() == before
    assert "cat.png" in (tmp_path / "index.html").read_text()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["images", "index.html", "reader"]


def test_images_of_an_earlier_page_are_removed(tmp_path) -> None:
    results(tmp_path, ["/data/testA/cat.jpg", "/data/testA/dog.jpg", "/data/testA/sub/a%20 #.jpg"])
    own = tmp_path / "results/images/fake_B/own.png"
    own.write_bytes(b"")
    path, page = results(tmp_path, ["/data/testA/cat.jpg"])
    files = sorted(file for file in (tmp_path / "results/images").rglob("*") if file.is_file())
    assert files == sorted([own, *(linked_file(path, link) for link in page.attributes("img", "src"))])


@pytest.mark.parametrize(
    "link",
    ["images/../keep.png", "../keep.png", "/keep.png", "images/%2e%2e/keep.png", "images/keep.txt", "images%00/x.png"],
)
def test_a_foreign_page_removes_no_files(tmp_path, link: str) -> None:
    folder = tmp_path / "results"
    (folder / "images").mkdir(parents=True)
    kept = [folder / "keep.png", tmp_path / "keep.png", folder / "images" / "keep.txt"]
    for file in kept:
        file.write_bytes(b"")
    (folder / "index.html").write_text(f'<a href="{link}"><a href><a href="images/gone.png"></b>')
    results(tmp_path, ["/data/testA/cat.jpg"])
    assert all(file.exists() for file in kept)


VISUALS = ("real_A", "fake_B", "real_B", "idt_B")


def visuals(shade: float = 0.0) -> dict[str, torch.Tensor]:
    return {name: image(shade) for name in VISUALS}


def headings(web_dir: Path) -> list[str]:
    return read_page(web_dir / "index.html").text_of("h2")


def update(page: TrainingPage, epoch: int, shade: float = 0.0) -> None:
    page.add_images(epoch, visuals(shade))
    page.write([], epoch)


def test_the_training_page_shows_the_newest_epoch_first_under_published_names(tmp_path) -> None:
    page = TrainingPage(tmp_path, "cats", 1, 400)
    for epoch in (1, 2, 10):
        update(page, epoch)
    assert headings(tmp_path) == ["epoch 10", "epoch 2", "epoch 1"]
    read = read_page(tmp_path / "index.html")
    assert read.attributes("img", "src")[:4] == [f"images/epoch010_{name}.png" for name in VISUALS]
    assert all(linked_file(tmp_path / "index.html", link).is_file() for link in read.attributes("img", "src"))
    assert captions(read)[:3] == [("input", "real_A"), ("translation", "fake_B"), ("a real B (unpaired)", "real_B")]
    assert facts_of(tmp_path / "index.html")["epoch"] == "10 of 400"


def test_the_training_page_exists_before_the_first_images_and_reloads_until_the_run_has_ended(tmp_path) -> None:
    page = TrainingPage(tmp_path / "web", "cats", 3, 4, facts={"method": "CUT"})
    page.write([], 3)
    assert (
        facts_of(tmp_path / "web" / "index.html").items()
        >= {"status": "running", "epoch": "3 of 4", "method": "CUT"}.items()
    )
    read = read_page(tmp_path / "web/index.html")
    assert ("meta", {"http-equiv": "refresh", "content": "60"}) in read.elements  # for browsers without scripts
    (body,) = [attributes for tag, attributes in read.elements if tag == "body"]
    assert body["data-running"] == "true" and float(body["data-patience"]) >= 600
    page.write([], 3, status="diverged", facts={"reason": "loss G is nan"})
    assert facts_of(tmp_path / "web" / "index.html").items() >= {"status": "diverged", "reason": "loss G is nan"}.items()
    read = read_page(tmp_path / "web/index.html")
    assert "refresh" not in [attributes.get("http-equiv") for _, attributes in read.elements]
    assert ("body", body["data-running"]) not in [(tag, attributes.get("data-running")) for tag, attributes in read.elements]


def test_the_real_image_of_a_pair_is_the_ground_truth(tmp_path) -> None:
    page = TrainingPage(tmp_path / "web", "maps", 1, 2, captions=page_captions(paired=True))
    update(page, 1)
    results_page = ResultsPage(tmp_path / "results", "maps", Path("/data"), {}, captions=page_captions(paired=True))
    results_page.add("/data/1.jpg", visuals())
    results_page.save()
    for folder in ("web", "results"):
        assert captions(read_page(tmp_path / folder / "index.html"))[2] == ("ground truth", "real_B")


def test_captions_name_the_domain_of_the_published_real_b() -> None:
    backward = page_captions("A")
    assert (backward["real_B"], backward["fake_A"]) == ("a real A (unpaired)", "translation to B")


def test_an_epoch_has_one_row_with_its_latest_images(tmp_path) -> None:
    page = TrainingPage(tmp_path, "cats", 1, 2)
    update(page, 1, shade=-1)
    update(page, 1, shade=1)
    assert headings(tmp_path) == ["epoch 1"]
    assert shade_of(tmp_path / "images/epoch001_fake_B.png") == 255


def test_a_resumed_run_shows_the_images_on_disk(tmp_path) -> None:
    first = TrainingPage(tmp_path, "cats", 1, 1200)
    for epoch in (1, 2, 3, 1000):
        update(first, epoch)
    (tmp_path / "images/epoch002_fake_B.png").write_bytes(b"\x89PNG truncated")
    (tmp_path / "images/notes.png").write_bytes(b"")
    second = TrainingPage(tmp_path, "cats", 3, 1200)
    second.write([], 3)
    assert headings(tmp_path) == ["epoch 2", "epoch 1"]  # 3 and 1000 are after the position of the resumed run
    update(second, 4)
    assert headings(tmp_path) == ["epoch 4", "epoch 2", "epoch 1"]
    read = read_page(tmp_path / "index.html")
    assert read.text_of("small") == [*VISUALS, *("real_A", "real_B", "idt_B"), *VISUALS]
    assert set(read.attributes("img", "width")) == {"6"}
