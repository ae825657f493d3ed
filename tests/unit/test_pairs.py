"""The rule that finds the pairs of two sets of images by their names."""

import unicodedata
from pathlib import Path

import pytest

from util.errors import UserError
from util.html.results_page import OutputNamer
from util.pairs import match_pairs

ACCENTED = "caf\u00e9"  # precomposed, as on Linux
DECOMPOSED = unicodedata.normalize("NFD", ACCENTED)  # as macOS writes it


@pytest.mark.parametrize(
    ("name", "partner"),
    [
        ("a.jpg", "a.png"),
        ("sub/a.JPG", "sub/a.tif"),
        ("1_A.jpg", "1_B.jpg"),
        ("sub/1_A.png", "sub/1_B.jpg"),
        ("1_A.png", "1.png"),
        (f"{ACCENTED}.png", f"{DECOMPOSED}.jpg"),
        (f"{DECOMPOSED}/x_A.png", f"{ACCENTED}/x_B.png"),
        ("12:30.png", "12_30.png"),
        ("IMG_1.jpg", "img_1.jpg"),
        ("v1.5.jpg", "v1.5.png"),
    ],
)
def test_names_of_a_pair_may_differ(name: str, partner: str) -> None:
    others = ["other.png", "deep/a.png", "v1.6.png", "12.png"]
    assert match_pairs([name, "alone.png"], [*others, partner]) == {name: partner}


def test_results_are_matched_to_the_names_of_their_sources(tmp_path: Path) -> None:
    """Each result, as test.py names it, finds the image with the name of its source."""
    sources = [
        "12:30.jpg",
        "a_A.png",
        "cat.jpg",
        "cat.tif",
        "s.png/x.jpg",
        "v1.5.jpg",
        "y" * 240 + ".png",
        f"{DECOMPOSED}.jpg",
    ]
    namer = OutputNamer(tmp_path)
    results = {namer.assign(str(tmp_path / source)).removesuffix(".png"): source for source in sorted(sources)}
    assert match_pairs(results, sorted(sources), has_extension=False) == results


def test_the_closer_name_wins() -> None:
    assert match_pairs(["1.jpg", "1_A.jpg"], ["1_A.png", "1_B.png", "1.png"]) == {"1.jpg": "1.png", "1_A.jpg": "1_A.png"}
    assert match_pairs(["a.jpg", "a.tif"], ["a.tif", "a.png"]) == {"a.jpg": "a.png", "a.tif": "a.tif"}


@pytest.mark.parametrize(
    ("names", "candidates"),
    [
        (["a.jpg", "a.tif"], ["a.png"]),
        (["a.jpg"], ["a.png", "a.tif"]),
        (["1_A.jpg"], ["1_B.jpg", "1_B.png"]),
        (["a_b.png"], ["a:b.jpg", "a?b.jpg"]),
    ],
)
def test_an_ambiguous_match_is_refused_by_name(names: list[str], candidates: list[str]) -> None:
    with pytest.raises(UserError, match="ambiguous pair: ") as refused:
        match_pairs(names, candidates)
    assert all(repr(name) in str(refused.value) for name in (*names, *candidates))
