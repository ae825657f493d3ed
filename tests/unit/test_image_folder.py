"""Listing the images of a dataset, and the errors if there are none."""

import os
from pathlib import Path

import pytest
from image_factory import fill, options, two_domains

from data import create_dataset
from data.base_dataset import list_paths
from data.image_folder import list_images
from util.errors import UserError


def names(folder: Path) -> list[str]:
    return [os.path.relpath(path, folder) for path in list_images(str(folder))]


def test_images_of_subfolders_in_sorted_order(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/1.JPG", "a.webp", "c.TIF", "notes.txt", ".hidden.png", ".cache/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert names(tmp_path) == ["a.webp", "b/1.JPG", "b/2.png", "c.TIF"]


def test_limit_applies_to_the_sorted_list(tmp_path: Path) -> None:
    for name in ("z.png", "m.png", "sub/a.png", "b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list_paths(options(tmp_path, max_dataset_size=2), tmp_path) == [str(tmp_path / "b.png"), str(tmp_path / "m.png")]


def test_links_are_followed_without_cycles(tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere", 2)
    folder = tmp_path / "trainA"
    fill(folder, 1)
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(folder)
    assert names(folder) == ["00.png", "linked/00.png", "linked/01.png"]


def test_file_names_that_are_not_valid_text(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = two_domains(tmp_path, n_A=1, n_B=1)
    odd = os.fsdecode(b"caf\xe9 \x1b[31m\n\"'.png")
    (root / "trainA" / "00.png").rename(root / "trainA" / odd)
    (root / "trainA" / f"a{odd}").touch()
    loader = create_dataset(options(root, num_threads=1))
    assert {path for batch in loader for path in batch["A_paths"]} == {str(root / "trainA" / odd)}
    printed = capfd.readouterr().err
    assert "an empty file" in printed
    assert printed.count("\n") == 1
    assert "\x1b" not in printed


def error_of(root: Path, **changes: object) -> str:
    with pytest.raises(UserError) as caught:
        create_dataset(options(root, **changes))
    return str(caught.value)


def test_missing_dataroot(tmp_path: Path) -> None:
    assert "--dataroot: missing" in error_of(Path("placeholder"))
    assert error_of(tmp_path / "nowhere") == f"--dataroot {tmp_path}/nowhere: no such folder. Check the path."


def test_a_missing_folder_lists_the_existing_ones(tmp_path: Path) -> None:
    two_domains(tmp_path, "test")
    error = error_of(tmp_path)
    assert error.startswith(f"{tmp_path}/trainA: not a folder; {tmp_path} has the folders testA, testB. ")
    assert "Check --dataroot and --phase (--evaluation_phase for the metrics of train.py)." in error


def test_long_and_empty_folders(tmp_path: Path) -> None:
    assert f"{tmp_path} is empty" in error_of(tmp_path)
    for number in range(20):
        (tmp_path / f"folder{number:02}").mkdir()
    assert "folder07 and 12 more" in error_of(tmp_path)
    assert f"{tmp_path / 'photos'} has no folders, but 3 files" in error_of(fill(tmp_path / "photos", 3)[0].parent)


def test_dataroot_that_is_a_file(tmp_path: Path) -> None:
    path = fill(tmp_path, 1)[0]
    assert "00.png is a file" in error_of(path)


def test_empty_folder_counts_other_files(tmp_path: Path) -> None:
    two_domains(tmp_path)
    for image in (tmp_path / "trainB").iterdir():
        image.rename(image.with_suffix(".pdf"))
    error = error_of(tmp_path)
    assert error.startswith(f"{tmp_path}/trainB: no images, only files of other types (3 .pdf).")
    assert ".jpeg" in error


def test_no_readable_image(tmp_path: Path) -> None:
    two_domains(tmp_path)
    for image in (tmp_path / "trainA").iterdir():
        image.write_bytes(b"text")
    error = error_of(tmp_path)
    assert "None of the 5 images of this folder can be read" in error
    assert "trainA/00.png" in error


def test_batch_larger_than_the_dataset(tmp_path: Path) -> None:
    two_domains(tmp_path)
    assert "--batch_size 6: larger than the dataset" in error_of(tmp_path, batch_size=6)
    assert "has 2 samples" in error_of(tmp_path, batch_size=3, max_dataset_size=2)
    create_dataset(options(tmp_path, batch_size=5))


def test_another_number_of_channels_than_all_images_have(tmp_path: Path) -> None:
    two_domains(tmp_path)
    error = error_of(tmp_path, output_nc=2, explicit=frozenset(["output_nc"]))
    assert "--output_nc 2: " in error and "00.png' has 3 bands, expected 2. Use --output_nc 3." in error
