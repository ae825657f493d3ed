"""scripts/evaluate.py: metrics, table, JSON and errors."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from image_factory import fill, noise
from PIL import Image
from programs import ENVIRONMENT, ROOT
from torch import nn

from scripts.evaluate import evaluate, parse
from util.errors import UserError
from util.html.results_page import ResultsPage
from util.metrics.distances import frechet_distance
from util.metrics.paired import psnr, ssim
from util.version import program_version


class Thumbnail(nn.Module):
    """A feature network small enough for tests: the mean colors of the four quadrants of an image."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)


@pytest.fixture(scope="module")
def thumbnail(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "thumbnail.pt2"
    auto = torch.export.Dim.AUTO
    example = torch.zeros(2, 3, 16, 24, dtype=torch.uint8)
    program = torch.export.export(Thumbnail(), (example,), dynamic_shapes={"images": {0: auto, 2: auto, 3: auto}})
    torch.export.save(program, path)
    return path


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """Write a dataset of six pairs, and a results page whose translations are closer to the targets than their inputs."""
    targets = [np.asarray(Image.open(path)) for path in fill(tmp_path / "data" / "testB", 6, (24, 16), seed=2)]
    rng = np.random.default_rng(0)
    for number, pixels in enumerate(targets):
        for visual, most in (("real_A", 90), ("fake_B", 30)):
            near = np.clip(pixels + rng.integers(-most, most + 1, pixels.shape), 0, 255).astype(np.uint8)
            file = tmp_path / "results" / "images" / visual / f"{number:02}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(near).save(file)
    links = (f"images/{visual}/{number:02}.png" for visual in ("real_A", "fake_B") for number in range(len(targets)))
    (tmp_path / "results" / "index.html").write_text("".join(f'<a href="{link}"></a>' for link in links))
    return tmp_path


def evaluated(folder: Path, *arguments: str) -> dict[str, dict[str, dict]]:
    """Evaluate the page with these arguments. Return the stored results by title and metric."""
    evaluate(
        parse(["--results", str(folder / "results"), "--dataroot", str(folder / "data"), "--gpu_ids", "-1", *arguments])
    )
    entries = json.loads((folder / "results" / "evaluation.json").read_text())
    return {entry["judged"]: {figure["name"]: figure for figure in entry["figures"]} for entry in entries}


def read_all(folder: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) for path in sorted(folder.iterdir())]


def test_a_page_is_evaluated_with_its_inputs_as_baseline(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluated(page, "--paired")
    baseline, translated = found["input left as it is"], found[str(page / "results")]
    target, results = read_all(page / "data" / "testB"), read_all(page / "results" / "images" / "fake_B")
    pairs = list(zip(results, target, strict=True))
    assert translated["PSNR"]["value"] == pytest.approx(np.mean([psnr(*pair) for pair in pairs]))
    assert translated["SSIM"]["value"] == pytest.approx(np.mean([ssim(*pair) for pair in pairs]))
    assert baseline["PSNR"]["value"] < translated["PSNR"]["value"]
    printed = capsys.readouterr().out
    assert f"{translated['PSNR']['value']:.4g}" in printed
    assert "PSNR ↑" in printed
    assert f"written: {page / 'results' / 'evaluation.json'}" in printed


def test_options_that_8_bit_images_do_not_use_are_named(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluated(page, "--paired", "--value_range", "0,100", "--show_channels", "3,2,1")
    warning = "warning: --value_range, --show_channels: not used, because all results are 8-bit images\n"
    assert capsys.readouterr().err == warning
    evaluated(page, "--paired")
    assert not capsys.readouterr().err


def test_distribution_metrics_match_the_features_and_store_their_settings(page: Path, thumbnail: Path) -> None:
    found = evaluated(page, "--features", str(thumbnail), "--seed", "3")[str(page / "results")]
    assert list(found) == [f"{name} (thumbnail)" for name in ("FID", "KID", "precision", "recall")]

    def features(folder: Path) -> torch.Tensor:
        return torch.stack([Thumbnail()(torch.from_numpy(p.transpose(2, 0, 1)[None].copy()))[0] for p in read_all(folder)])

    fake, real = features(page / "results" / "images" / "fake_B"), features(page / "data" / "testB")
    direct = frechet_distance(fake.double(), real.double())
    assert found["FID (thumbnail)"]["value"] == pytest.approx(direct, rel=1e-6)
    for figure in found.values():
        assert {name: figure[name] for name in ("split", "pictures", "real_pictures", "resize", "seed", "network")} == {
            "split": "testB",
            "pictures": 6,
            "real_pictures": 6,
            "resize": "its own",
            "seed": 3,
            "network": "thumbnail",
        }
        assert len(figure["weights_sha256"]) == 64
    assert found["KID (thumbnail)"]["spread"] > 0


def test_real_images_are_converted_to_the_size_and_color_of_the_results(page: Path) -> None:
    """Convert as test.py does: --crop_size makes the results smaller than the dataset's files."""
    for path in (page / "data" / "testB").iterdir():
        image = Image.open(path).resize((48, 32))
        image.save(path)
        gray = image.convert("L").resize((24, 16), Image.Resampling.BICUBIC)
        gray.save(page / "results" / "images" / "fake_B" / path.name)
    found = evaluated(page, "--paired")[str(page / "results")]
    assert found["PSNR"]["value"] is None  # equal images: infinite, which JSON does not support
    assert found["SSIM"]["value"] == pytest.approx(1)


def test_one_grayscale_result_leaves_the_real_images_in_color(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (page / "data" / "testB").iterdir():
        Image.open(path).save(page / "results" / "images" / "fake_B" / path.name)
    first = page / "results" / "images" / "fake_B" / "00.png"
    target = np.asarray(Image.open(first))
    Image.open(first).convert("L").save(first)
    found = evaluated(page, "--paired", "--max_images", "2")[str(page / "results")]
    gray = np.asarray(Image.open(first).convert("RGB"))
    assert found["SSIM"]["value"] == pytest.approx((ssim(gray, target) + 1) / 2)
    assert "fake_B: 1 of 2 images are grayscale. The real images keep their colors." in capsys.readouterr().out


def test_the_baseline_is_that_of_the_first_page_among_the_folders(page: Path) -> None:
    folders = [str(page / "results" / "images" / "fake_B"), str(page / "results")]
    evaluate(parse(["--results", *folders, "--real", str(page / "data" / "testB"), "--paired", "--gpu_ids", "-1"]))
    entries = json.loads((page / "results" / "evaluation.json").read_text())
    assert [entry["judged"] for entry in entries] == ["input left as it is", folders[1]]


def test_several_folders_are_written_to_one_file(page: Path, tmp_path: Path, thumbnail: Path) -> None:
    folders = [str(page / "results" / "images" / visual) for visual in ("fake_B", "real_A")]
    real = ["--real", str(page / "data" / "testB"), "--json", str(tmp_path / "metrics.json")]
    asked = ["--features", str(thumbnail), "--paired", "--max_images", "5"]
    evaluate(parse(["--results", *folders, *real, *asked, "--gpu_ids", "-1"]))
    entries = json.loads((tmp_path / "metrics.json").read_text())
    assert [entry["judged"] for entry in entries] == folders
    assert entries[0]["program"] == program_version()
    assert {figure["pictures"] for entry in entries for figure in entry["figures"]} == {5}
    assert [len(entry["figures"]) for entry in entries] == [6, 6]


def test_lpips_uses_the_weights_in_torchs_cache(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

    monkeypatch.setenv("TORCH_HOME", str(page / "cache"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    file = page / "cache" / "hub" / "checkpoints" / SqueezeNet1_1_Weights.DEFAULT.url.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    torch.save(squeezenet1_1(weights=None).state_dict(), file)
    for folder in (page / "data" / "testB", page / "results" / "images" / "fake_B", page / "results" / "images" / "real_A"):
        for path in folder.iterdir():
            Image.open(path).resize((64, 64)).save(path)

    found = evaluated(page, "--lpips", "squeeze")
    baseline, translated = found["input left as it is"], found[str(page / "results")]
    assert list(translated) == ["LPIPS (squeeze)"]
    from torchmetrics.functional.image import learned_perceptual_image_patch_similarity

    target, results = (
        torch.stack([torch.from_numpy(image.transpose(2, 0, 1) / np.float32(255)) for image in read_all(folder)])
        for folder in (page / "data" / "testB", page / "results" / "images" / "fake_B")
    )
    direct = learned_perceptual_image_patch_similarity(results, target, net_type="squeeze", normalize=True)
    assert translated["LPIPS (squeeze)"]["value"] == pytest.approx(float(direct), rel=1e-4)
    assert translated["LPIPS (squeeze)"]["value"] < baseline["LPIPS (squeeze)"]["value"]


def write_results(folder: Path, **record: str) -> Path:
    """Write a results page with two inputs of the target domain of `folder`/data, translated from B to A."""
    data = folder.resolve() / "data"
    known = {"direction": "BtoA", "phase": "test", "dataroot": str(data)}
    known |= {"source": str(data / "testB"), "target": str(data / "testA")}
    with ResultsPage(folder / "results", "cats", data / "testB", {}, record=known | record) as page:
        for path in fill(data / "testB", 2, (24, 16)):
            pixels = torch.from_numpy(np.asarray(Image.open(path)).copy()).permute(2, 0, 1)[None] / 127.5 - 1
            page.add(str(path), {"real_A": pixels, "fake_B": pixels.flip(3), "real_B": pixels})
        page.save()
    fill(data / "testA", 3, (24, 16), seed=5)
    return folder / "results"


@pytest.mark.parametrize("arguments", [[], ["--dataroot", "data"], ["--dataroot", "data", "--direction", "BtoA"]])
def test_the_target_domain_is_that_of_the_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    results = write_results(tmp_path)
    evaluate(parse(["--results", "results", "--paired", "--gpu_ids", "-1", *arguments]))
    entries = json.loads((results / "evaluation.json").read_text())
    assert {Path(entry["real"]).resolve() for entry in entries} == {tmp_path.resolve() / "data" / "testA"}
    with pytest.raises(UserError, match=r"--direction AtoB: results was tested with --direction BtoA, so .* domain A"):
        evaluate(parse(["--results", "results", "--dataroot", "data", "--paired", "--direction", "AtoB"]))


def test_pairs_of_an_aligned_dataset_are_those_of_the_page(tmp_path: Path) -> None:
    results = write_results(tmp_path, dataset_mode="aligned")
    evaluate(parse(["--results", str(results), "--paired", "--gpu_ids", "-1"]))
    entries = json.loads((results / "evaluation.json").read_text())
    assert {entry["real"] for entry in entries} == {str(results / "images" / "real_B")}


def test_a_cycle_gans_translation_back_belongs_to_the_source_domain(page: Path) -> None:
    (page / "data" / "testB").rename(page / "data" / "testA")
    record = {
        "direction": "AtoB",
        "phase": "test",
        "dataroot": "",
        "source": str(page.resolve() / "data" / "testA"),
        "target": None,
        "weights": [{"network": "G_B", "file": "latest_net_G_B.pth", "sha256": "0" * 64}],
    }
    (page / "results" / "page.json").write_text(json.dumps(record | {"results": 6, "inputs": {}}))
    for path in (page / "results" / "images").iterdir():
        path.rename(path.with_name({"real_A": "real_B", "fake_B": "fake_A"}[path.name]))
    index = page / "results" / "index.html"
    index.write_text(index.read_text().replace("real_A", "real_B").replace("fake_B", "fake_A"))
    found = evaluated(page, "--paired", "--visual", "fake_A")
    assert list(found) == ["input left as it is", str(page / "results")]
    entries = json.loads((page / "results" / "evaluation.json").read_text())
    assert [entry["weights"] for entry in entries] == [None, record["weights"]]


def test_other_data_than_that_of_the_test_is_an_error(tmp_path: Path) -> None:
    results = write_results(tmp_path / "one")
    write_results(tmp_path / "two")
    with pytest.raises(UserError, match=r"two/data: .*one/results was translated from .*one/data/testB\. Use its dataset"):
        evaluate(parse(["--results", str(results), "--dataroot", str(tmp_path / "two" / "data"), "--paired"]))
    with pytest.raises(UserError, match=r"have different target domains .* one by one"):
        evaluate(parse(["--results", str(results), str(tmp_path / "two" / "results"), "--paired"]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--results", "nowhere"], "--results nowhere: no such folder. Check the path."),
        (["--real", "nowhere"], "--real nowhere: no such folder. Check the path."),
        ([], "data/testA, which is gone. Give it with --real."),
    ],
)
def test_missing_folders_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_results(tmp_path)
    (tmp_path / "data/testA").rename(tmp_path / "data/moved")
    with pytest.raises(UserError, match=message):
        evaluate(parse(["--results", "results", *arguments, "--paired"]))


def test_incomplete_results_are_an_error(page: Path) -> None:
    images, index = page / "results" / "images" / "fake_B", page / "results" / "index.html"
    (images / "07.png").write_bytes((images / "00.png").read_bytes())
    with pytest.raises(UserError, match=r"has 1 images that index\.html does not show \(07\.png\)"):
        evaluated(page, "--paired")
    (images / "07.png").rename(images / "00.png")
    (images / "03.png").unlink()
    with pytest.raises(UserError, match=r"incomplete, 1 of 6 images of .*fake_B are missing \(03\.png\)\. Run test\.py"):
        evaluated(page, "--paired")
    index.unlink()
    with pytest.raises(UserError, match=r"no index\.html, so the results may be incomplete\. Run test\.py again, or give"):
        evaluated(page, "--paired")


@pytest.mark.parametrize("folder", ["results", "results/images"])
def test_a_folder_with_several_sets_of_images_is_an_error(page: Path, folder: str) -> None:
    if folder == "results":
        (page / "run").mkdir()
        (page / "results").rename(page / "run" / "test_latest")
        folder, message = "run", "run: contains results pages, and is none itself. Give one of them: .*run/test_latest"
    else:
        message = "the images of all visuals. Give the results page, .*results"
    with pytest.raises(UserError, match=message):
        evaluate(parse(["--results", str(page / folder), "--real", str(page / "data"), "--paired"]))


def test_counts_are_in_the_table_and_limited_on_both_sides(
    page: Path, thumbnail: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(page / "data" / "testB" / "more", 2, (24, 16))
    evaluated(page, "--features", str(thumbnail))
    printed = capsys.readouterr().out
    assert [line.split()[-2:] for line in printed.splitlines() if line.startswith(("results", "real images"))] == [
        ["6", "6"],
        ["8", "8"],
    ]
    assert "warning: 6 results, but 8 real images. FID depends on both numbers. --max_images 6 makes them equal." in printed
    found = evaluated(page, "--features", str(thumbnail), "--paired", "--max_images", "4")[str(page / "results")]
    assert {(figure["pictures"], figure.get("real_pictures")) for figure in found.values()} == {(4, 4), (4, None)}
    assert "warning" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], ": no metric requested. Add at least one."),
        (["--paired", "--phase", "val"], "valB: not a folder"),
        (["--features", "nowhere.pth"], "nowhere.pth: no such file"),
        (["--paired", "--visual", "fake_A"], "fake_A: not a folder"),
        (["--paired", "--json", "."], "--json .: a folder"),
    ],
)
def test_wrong_options_are_errors(page: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        evaluated(page, *arguments)


def test_translations_without_ground_truth_are_counted(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = evaluated(page, "--paired")[str(page / "results")]
    noise(24, 16).save(page / "results" / "images" / "fake_B" / "extra.png")
    index = page / "results" / "index.html"
    index.write_text(index.read_text() + '<a href="images/fake_B/extra.png"></a>')
    (page / "data" / "testB" / "03.png").write_bytes(b"")
    evaluated_again = evaluated(page, "--paired")[str(page / "results")]
    assert (expected["PSNR"]["pairs"], evaluated_again["PSNR"]["pairs"]) == (6, 5)
    printed = capsys.readouterr()
    assert f"{page / 'results'}: pairs: 6 of 7 matched\n" in printed.out
    assert f"warning: skipped 1 unreadable image, {str(page / 'data' / 'testB' / '03.png')!r}: an empty file" in printed.err


def test_names_of_pairs_may_differ(page: Path) -> None:
    expected = evaluated(page, "--paired")[str(page / "results")]
    for visual in ("fake_B", "real_A"):
        (page / "results" / "images" / visual / "03.png").rename(page / "results" / "images" / visual / "03_A.png")
    index = page / "results" / "index.html"
    index.write_text(index.read_text().replace("03.png", "03_A.png"))
    with Image.open(page / "data" / "testB" / "03.png") as image:
        image.save(page / "data" / "testB" / "03_B.bmp")
    (page / "data" / "testB" / "03.png").unlink()
    assert evaluated(page, "--paired")[str(page / "results")]["PSNR"] == expected["PSNR"]
    noise(24, 16).save(page / "data" / "testB" / "03_B.png")
    with pytest.raises(UserError, match=r"ambiguous pair: '03_A' could belong to '03_B\.bmp' or '03_B\.png'"):
        evaluated(page, "--paired")


def test_results_in_tiff_belong_to_ground_truth_of_another_ending(page: Path) -> None:
    expected = evaluated(page, "--paired")[str(page / "results")]
    folders = {page / "results" / "images" / visual: ".tif" for visual in ("fake_B", "real_A")}
    for folder, suffix in (folders | {page / "data" / "testB": ".tiff"}).items():
        for path in list(folder.iterdir()):
            with Image.open(path) as image:
                image.save(path.with_suffix(suffix))
            path.unlink()
    index = page / "results" / "index.html"
    index.write_text(index.read_text().replace(".png", ".tif"))
    assert evaluated(page, "--paired")[str(page / "results")]["PSNR"] == expected["PSNR"]


def test_translations_of_other_images_or_of_another_size_are_errors(page: Path) -> None:
    noise(30, 16).save(page / "results" / "images" / "fake_B" / "00.png")
    with pytest.raises(UserError, match=r"--paired: .*of the same shape"):
        evaluated(page, "--paired")
    for path in (page / "data" / "testB").iterdir():
        path.rename(path.with_stem(f"other_{path.stem}"))
    with pytest.raises(UserError, match="testB: no image is the ground truth of one of 6 images such as 00"):
        evaluated(page, "--paired")


def test_an_unreadable_real_image_is_skipped_and_counted(
    page: Path, thumbnail: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (page / "data" / "testB" / "03.png").write_bytes(b"not an image")
    found = evaluated(page, "--features", str(thumbnail))[str(page / "results")]
    assert found["FID (thumbnail)"]["real_pictures"] == 5
    printed = capsys.readouterr()
    assert "warning: skipped 1 unreadable image, " in printed.err
    assert (
        "warning: 6 results, but 5 real images. FID depends on both numbers. --max_images 5 makes them equal." in printed.out
    )
    found = evaluated(page, "--features", str(thumbnail), "--max_images", "5")[str(page / "results")]
    assert (found["FID (thumbnail)"]["pictures"], found["FID (thumbnail)"]["real_pictures"]) == (5, 5)
    printed = capsys.readouterr()
    assert "skipped 1" in printed.err
    assert "warning" not in printed.out


def test_real_images_are_read_as_the_test_read_its_own(page: Path, thumbnail: Path) -> None:
    """By default as page.json says: here each page of a TIFF is an image."""
    real = page / "data" / "testB"
    first, *others = [Image.open(path) for path in sorted(real.iterdir())]
    first.save(real / "stack.tif", save_all=True, append_images=others)
    for path in real.glob("*.png"):
        path.unlink()
    record = {"direction": "AtoB", "phase": "test", "dataroot": str(page / "data"), "source": "testA", "target": None}
    (page / "results" / "page.json").write_text(json.dumps(record | {"results": 6, "inputs": {}, "tiff_pages": "all"}))
    found = evaluated(page, "--features", str(thumbnail))[str(page / "results")]
    assert found["FID (thumbnail)"]["real_pictures"] == 6
    with pytest.raises(UserError, match="real images: 1 image"):
        evaluated(page, "--features", str(thumbnail), "--tiff_pages", "largest")


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"preprocess": 1}', '{"preprocess": "krop", "load_size": 1, "crop_size": 1}']
)
def test_a_damaged_record_of_a_page_is_an_error(page: Path, content: str) -> None:
    (page / "results" / "page.json").write_text(content)
    with pytest.raises(UserError, match=r"page\.json: damaged .*Run test\.py again"):
        evaluated(page, "--paired")


def test_missing_weights_without_network_are_one_line_with_status_2(page: Path) -> None:
    environment = ENVIRONMENT | {"TORCH_HOME": os.fspath(page), "https_proxy": "http://127.0.0.1:9"}  # no server
    finished = subprocess.run(
        [sys.executable, ROOT / "scripts" / "evaluate.py", "--results", "results", "--dataroot", "data", "--inception"],
        cwd=page,
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert finished.returncode == 2, finished
    (line,) = finished.stderr.splitlines()
    assert line.startswith("error: ")
    assert ": missing, and the download of https://github.com/" in line


@pytest.mark.parametrize("content", [b"", b"not an image"])
def test_a_file_that_is_not_an_image_is_an_error(page: Path, content: bytes) -> None:
    broken = page / "results" / "images" / "fake_B" / "03.png"
    broken.write_bytes(content)
    with pytest.raises(UserError, match=r"03\.png': cannot be evaluated: .*Remove the file"):
        evaluated(page, "--paired")


@pytest.mark.parametrize(
    ("flag", "package", "name"),
    [("--inception", "torch_fidelity", "torch-fidelity"), ("--paired", "torchmetrics", "torchmetrics")],
)
def test_a_missing_package_is_an_error(
    page: Path, monkeypatch: pytest.MonkeyPatch, flag: str, package: str, name: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if not installed
    with pytest.raises(UserError, match=f"{flag}: {name} is not installed. Install it with `pip install {name}`"):
        evaluated(page, flag)


def test_the_folders_of_a_training_are_those_of_the_page(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--results", str(page), "--paired", "--dataroot_A", "photos", "--dataroot_B", "art"])
    assert "A results page knows its folders; for other images, use --real FOLDER." in capsys.readouterr().err
