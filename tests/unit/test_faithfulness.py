"""Faithfulness metrics: the structure distance and PSNR/SSIM against the source, compared with direct computations."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from scripts.evaluate import evaluate, parse
from util.errors import UserError
from util.metrics.base import EvalImages
from util.metrics.distances import DistributionMetrics
from util.metrics.evaluator import MetricEvaluator, create_evaluator
from util.metrics.faithfulness import FaithfulnessMetrics, mean_structure_distance, structure_distance
from util.metrics.feature_extractors import FeatureExtractor, ReferenceSet, load_features
from util.metrics.paired import psnr, ssim

CPU = torch.device("cpu")


def noise(seed: int, count: int = 6, size: tuple[int, int] = (32, 40)) -> list[np.ndarray]:
    """Return smooth random images, each with its own layout."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    return [np.asarray(Image.fromarray(each).resize(size[::-1], Image.Resampling.BICUBIC)) for each in coarse]


def direct_distance(source: np.ndarray, result: np.ndarray) -> float:
    """Compute the mean of |S(source) - S(result)| of maps (C, H, W) pair by pair, in float64."""
    total, similarities = 0.0, []
    for each in (source, result):
        vectors = each.reshape(len(each), -1).astype(np.float64).T
        similarities.append(
            [[float(x @ y) / (float(np.sqrt(x @ x)) * float(np.sqrt(y @ y))) for y in vectors] for x in vectors]
        )
    count = len(similarities[0])
    for row in range(count):
        for column in range(count):
            total += abs(similarities[0][row][column] - similarities[1][row][column])
    return total / count**2


def extractor(network: nn.Module) -> FeatureExtractor:
    """Return an extractor whose feature map is the output of `network`, on the unchanged pixels."""
    pooled = nn.Sequential(network, nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def preprocess(image: np.ndarray, resize: str) -> torch.Tensor:
        return torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32)) / 255

    return FeatureExtractor("tiny", "0" * 64, ("clean",), pooled, preprocess, CPU, network, "conv")


@pytest.fixture
def convolution() -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(3, 5, 7, stride=5)


def test_the_distance_matches_its_definition(convolution: nn.Conv2d) -> None:
    source, results = noise(0), noise(1)
    found = mean_structure_distance(extractor(convolution), EvalImages(results, source=source), "clean")
    with torch.no_grad():
        maps = [
            [convolution(torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32) / 255)[None])[0] for image in images]
            for images in (source, results)
        ]
    expected = np.mean([direct_distance(a.double().numpy(), b.double().numpy()) for a, b in zip(*maps, strict=True)])
    assert found == pytest.approx(expected, abs=1e-12)


def test_the_distance_ignores_appearance_and_counts_structure(convolution: nn.Conv2d) -> None:
    source = noise(0)
    measure = extractor(convolution)

    def distance(results: list[np.ndarray]) -> float:
        return mean_structure_distance(measure, EvalImages(results, source=source), "clean")

    slightly_darker = [(image * 0.9).astype(np.uint8) for image in source]
    assert distance(source) == 0
    assert distance(source[1:] + source[:1]) > 5 * distance(slightly_darker)


def test_large_maps_are_pooled_to_1024_positions() -> None:
    torch.manual_seed(0)
    source, result = torch.randn(2, 4, 64, 48, dtype=torch.float64)
    pooled = [nn.functional.adaptive_avg_pool2d(each, (32, 32)) for each in (source, result)]
    assert structure_distance(source, result) == structure_distance(*pooled)


def test_a_zero_vector_is_similar_to_nothing() -> None:
    blank = torch.zeros(3, 2, 2, dtype=torch.float64)
    assert structure_distance(blank, torch.ones(3, 2, 2, dtype=torch.float64)) == pytest.approx(1)


@pytest.mark.parametrize("requested", [True, False])
def test_the_distance_is_computed_beside_every_fid_if_sources_are_given(requested: bool, convolution: nn.Conv2d) -> None:
    metrics = {"features": DistributionMetrics(extractor(convolution), 0)}
    metrics |= {"faithfulness": FaithfulnessMetrics()} if requested else {}
    images = EvalImages(noise(1), real=ReferenceSet(noise(2)), source=noise(0) if requested else None)
    results = {result.name: result for result in MetricEvaluator(metrics, 0).evaluate(images, "testA to testB")}
    assert ("structure (tiny)" in results) == ("PSNR_source" in results) == requested
    if requested:
        assert results["structure (tiny)"].lower_is_better and not results["PSNR_source"].lower_is_better
        assert results["structure (tiny)"].to_row()["layer"] == "conv"


def test_psnr_and_ssim_compare_with_the_source() -> None:
    source, results = noise(0), noise(1)
    gray = results[0][:, :, 0]
    found = {each.metric: each.value for each in FaithfulnessMetrics().measure(EvalImages([gray], source=source[:1]))}
    as_rgb = np.repeat(gray[:, :, None], 3, axis=2)
    assert found == {"PSNR_source": psnr(as_rgb, source[0]), "SSIM_source": ssim(as_rgb, source[0])}
    (same, _) = FaithfulnessMetrics().measure(EvalImages(source, source=source))
    assert same.value == np.inf
    with pytest.raises(UserError, match=r"--faithfulness: expected .* images of the same shape"):
        list(FaithfulnessMetrics().measure(EvalImages(noise(1, size=(16, 16)), source=source)))


class Program(nn.Module):
    """A feature network that ends with a global pooling, as most do."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, stride=4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = torch.relu(self.convolution(images.float() / 255))
        return nn.functional.adaptive_avg_pool2d(maps, 1).flatten(1)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    auto = torch.export.Dim.AUTO
    example = torch.zeros(2, 3, 16, 24, dtype=torch.uint8)
    exported = torch.export.export(Program(), (example,), dynamic_shapes={"images": {0: auto, 2: auto, 3: auto}})
    torch.export.save(exported, tmp_path / "program.pt2")
    return tmp_path / "program.pt2"


def test_a_program_gives_its_last_feature_map(program: Path) -> None:
    loaded = load_features(program, CPU)
    torch.manual_seed(1)
    network = Program()
    images = torch.from_numpy(np.stack(noise(0)).transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        expected = torch.relu(network.convolution(images.float() / 255))
    found = torch.stack(list(loaded.feature_maps(noise(0), "its own")))
    torch.testing.assert_close(found, expected.double())


def test_a_torchscript_program_has_no_feature_map(tmp_path: Path) -> None:
    torch.jit.trace(Program(), torch.zeros(2, 3, 16, 24, dtype=torch.uint8)).save(str(tmp_path / "script.pt"))
    loaded = load_features(tmp_path / "script.pt", CPU)
    assert loaded.map_network is None
    images = EvalImages(noise(1), real=ReferenceSet(noise(2)), source=noise(0))
    assert "structure" not in {found.metric for found in DistributionMetrics(loaded, 0).measure(images)}


def test_evaluate_reads_the_sources_from_the_results_page(tmp_path: Path, program: Path) -> None:
    """The inputs as a baseline have distance 0; translations by another image are far."""
    sources = noise(0)
    for folder, images in (
        ("page/images/real_A", sources),
        ("page/images/fake_B", sources[1:] + sources[:1]),
        ("real", noise(2)),
    ):
        (tmp_path / folder).mkdir(parents=True)
        for number, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / folder / f"{number}.png")
    links = (
        f'<a href="images/{visual}/{number}.png"></a>' for visual in ("real_A", "fake_B") for number in range(len(sources))
    )
    (tmp_path / "page" / "index.html").write_text("".join(links))
    arguments = ["--results", str(tmp_path / "page"), "--real", str(tmp_path / "real"), "--gpu_ids", "-1"]
    evaluate(parse([*arguments, "--features", str(program), "--faithfulness"]))
    baseline, translated = json.loads((tmp_path / "page" / "evaluation.json").read_text())
    values = [{row["name"]: row["value"] for row in entry["figures"]} for entry in (baseline, translated)]
    assert values[0]["structure (program)"] == 0
    assert values[0]["PSNR_source"] is None  # infinite
    assert values[1]["structure (program)"] > 0.01
    assert values[1]["SSIM_source"] < 0.9
    with pytest.raises(UserError, match="no input images"):
        evaluate(parse(["--results", str(tmp_path / "real"), *arguments[2:], "--faithfulness"]))


def test_best_by_must_be_computed(program: Path) -> None:
    evaluator = create_evaluator({"features": str(program)}, 0, CPU)
    evaluator.check_computes("FID")
    with pytest.raises(
        UserError, match=r"--best_by structure: not computed\. Add --faithfulness with --inception or --features"
    ):
        evaluator.check_computes("structure")
    with pytest.raises(UserError, match=r"--best_by FID: not computed\. Add --inception or --features\.$"):
        create_evaluator({}, 0, CPU).check_computes("FID")
    create_evaluator({"features": str(program), "faithfulness": True}, 0, CPU).check_computes("structure")
    missing = {"features": str(program.with_name("missing.pt2")), "paired": True}
    with pytest.raises(
        UserError,
        match=r"--best_by FID: the weights of --features are unavailable\. Copy them here, or use one of PSNR, SSIM\.$",
    ):
        create_evaluator(missing, 0, CPU, on_missing_weights=lambda error: None).check_computes("FID", missing)
