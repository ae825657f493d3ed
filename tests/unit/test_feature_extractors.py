"""Feature extractors from files: preprocessing, names, and errors for files that contain no network."""

import hashlib
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from util.errors import UserError
from util.metrics.feature_extractors import (
    FeatureExtractor,
    WeightsAbsentError,
    cached_download,
    clean,
    legacy,
    load_features,
    load_inception,
    sha256,
)

CPU = torch.device("cpu")


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


class MeanColor(nn.Module):
    """A feature network that a user might provide: no resizing, uint8 input."""

    def forward(self, images: Tensor) -> Tensor:
        return images.float().mean((2, 3))


@pytest.fixture(scope="module")
def squeezenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return SqueezeNet's features with random weights, as a state dict."""
    from torchvision.models import squeezenet1_1

    path = tmp_path_factory.mktemp("weights") / "features.pth"
    torch.save(squeezenet1_1(weights=None).features.state_dict(), path)
    return path


def test_clean_resize_is_pils_bicubic_on_every_channel() -> None:
    """Compare a smooth image with the resize of an 8-bit image before rounding; overshoot is clipped."""
    smooth = np.asarray(Image.fromarray(image(6, 6)).resize((60, 40), Image.Resampling.BILINEAR))
    resized = clean(smooth, 23)
    rounded = np.asarray(Image.fromarray(smooth).resize((23, 23), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    assert resized.shape == (3, 23, 23)
    assert np.abs(resized.numpy() - rounded).max() <= 1
    assert (resized != resized.round()).any()
    black_and_white = np.repeat(np.repeat(image(8, 8) // 128 * 255, 5, axis=0), 5, axis=1)
    assert clean(black_and_white, 70).aminmax() == (0, 255)


def test_legacy_resize_interpolates_four_pixels() -> None:
    from_above = image(40, 60)
    resized = legacy(from_above, 10).numpy()
    for row, column in [(0, 0), (3, 7), (9, 9)]:
        y, x = (row + 0.5) * 4 - 0.5, (column + 0.5) * 6 - 0.5
        top, left, down, right = int(y), int(x), y % 1, x % 1
        pixels = from_above[top : top + 2, left : left + 2].astype(float)
        expected = np.einsum("i,j,ijc->c", [1 - down, down], [1 - right, right], pixels)
        assert resized[:, row, column] == pytest.approx(expected, abs=1e-3)


def test_squeezenet_input_is_bgr_minus_its_mean(squeezenet: Path) -> None:
    from torchvision.models import squeezenet1_1

    network = load_features(squeezenet, CPU)
    assert (network.name, network.weights_sha256, network.resize_modes) == (
        "squeezenet1_1",
        sha256(squeezenet),
        ("clean", "legacy"),
    )
    shown = image(227, 227)
    features = squeezenet1_1(weights=None).features.eval()
    features.load_state_dict(torch.load(squeezenet, weights_only=True))
    blue_green_red = shown[:, :, ::-1].astype(np.float32) - np.array([104, 117, 123], np.float32)
    with torch.inference_mode():
        direct = features(torch.from_numpy(blue_green_red.transpose(2, 0, 1).copy())[None]).mean((2, 3))
    for resize in network.resize_modes:  # at this size, resizing changes nothing
        found = network.features([shown], resize)
        assert found.dtype == torch.float64
        torch.testing.assert_close(found, direct.double(), rtol=1e-5, atol=1e-6)


def test_features_do_not_depend_on_batches_and_gray_becomes_rgb(squeezenet: Path) -> None:
    network = load_features(squeezenet, CPU)
    shown = [image(30, 40), image(50, 20, 1), image(30, 40, 2)[:, :, 0]]
    together = network.features(shown, "clean")
    assert together.shape == (3, 512)
    one_by_one = network.features(shown, "clean", batch_size=1)
    torch.testing.assert_close(together, one_by_one, rtol=1e-4, atol=1e-4)  # float32 sums in a different order
    to_rgb = np.repeat(shown[2][:, :, None], 3, axis=2)
    torch.testing.assert_close(network.features([to_rgb], "clean"), one_by_one[2:])


def saved_program(kind: str, path: Path) -> Path:
    example = torch.zeros(2, 3, 8, 12, dtype=torch.uint8)
    if kind == "torch.export":
        auto = torch.export.Dim.AUTO
        shapes = {"images": {0: auto, 2: auto, 3: auto}}
        torch.export.save(torch.export.export(MeanColor(), (example,), dynamic_shapes=shapes), path.with_suffix(".pt2"))
        return path.with_suffix(".pt2")
    with warnings.catch_warnings(action="ignore"):  # deprecated, but such files are still in use
        torch.jit.trace(MeanColor(), example).save(path)
    return path


@pytest.mark.parametrize("kind", ["torch.export", "torch.jit"])
def test_a_program_receives_uint8_and_is_named_after_its_file(kind: str, tmp_path: Path) -> None:
    network = load_features(saved_program(kind, tmp_path / "mean_color.pt"), CPU)
    assert (network.name, network.resize_modes) == ("mean_color", ("its own",))
    shown = [image(9, 14), image(9, 14, 1), image(20, 6, 2)]
    expected = np.stack([each.astype(np.float64).mean((0, 1)) for each in shown])
    assert network.features(shown, "its own").numpy() == pytest.approx(expected, rel=1e-5)


def test_errors_name_the_program() -> None:
    def preprocess(shown: np.ndarray, resize: str) -> Tensor:
        return torch.from_numpy(shown.transpose(2, 0, 1)).float()

    shapeless = FeatureExtractor("odd", "", ("its own",), nn.Identity(), preprocess, CPU)
    with pytest.raises(UserError, match=r"odd: expected output \(N, D\), got \(1, 3, 8, 8\)"):
        shapeless.features([image(8, 8)], "its own")
    too_wide = FeatureExtractor("wide", "", ("its own",), nn.Conv2d(4, 1, 1), preprocess, CPU)
    with pytest.raises(UserError, match=r"wide: cannot process these images: .*channels"):
        too_wide.features([image(8, 8)], "its own")


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return FID's Inception with random weights, under the names of the distributed file."""
    from torchvision.models import inception_v3

    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    network = inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False)
    torch.save(network.state_dict(), path)
    return path


def test_inception_matches_torch_fidelity(inception: Path) -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    network = load_inception(inception, CPU)
    assert (network.name, network.weights_sha256, network.resize_modes) == (
        "inception",
        sha256(inception),
        ("clean", "legacy"),
    )
    shown = image(299, 299)
    theirs = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(inception))
    with torch.inference_mode():
        (direct,) = theirs(torch.from_numpy(shown.transpose(2, 0, 1).copy())[None])
    torch.testing.assert_close(network.features([shown], "clean"), direct.double(), rtol=1e-5, atol=1e-7)
    assert network.preprocess(np.full((299, 299, 3), 255, np.uint8), "legacy").unique().tolist() == [1.0]
    assert network.preprocess(np.zeros((9, 9, 3), np.uint8), "legacy").unique().tolist() == [-1.0]


def test_torchvisions_inception_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "inception_v3_google-0cc3c7bd.pth"
    torch.save({"fc.weight": torch.zeros(1000, 2048)}, path)
    with pytest.raises(UserError, match=r"1008 classes \(torchvision's has 1000\)"):
        load_inception(path, CPU)


def test_files_without_a_network_are_errors(tmp_path: Path) -> None:
    with pytest.raises(WeightsAbsentError, match=r"nowhere\.pth: no such file"):
        load_features(tmp_path / "nowhere.pth", CPU)
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(b"PK\x03\x04 truncated")
    for load in (load_features, load_inception):
        with pytest.raises(UserError, match=r"damaged\.pth: not a state dict, or damaged"):
            load(damaged, CPU)
    other = tmp_path / "other.pth"
    torch.save({"weight": torch.zeros(3)}, other)
    with pytest.raises(UserError, match="not a feature network"):
        load_features(other, CPU)


def test_one_changed_byte_of_a_weight_is_an_error(squeezenet: Path, tmp_path: Path) -> None:
    """torch.load does not notice it, and every metric would be silently wrong."""
    content = bytearray(squeezenet.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "changed.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"changed\.pth: not a state dict, or damaged"):
        load_features(tmp_path / "changed.pth", CPU)


def test_weights_are_found_in_torchs_cache_and_missing_ones_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    url = "http://127.0.0.1:9/weights.pth"  # no server on this port
    with pytest.raises(WeightsAbsentError, match=r"weights.pth: missing, and the download of http.* failed \(.*refused\)"):
        cached_download(url)
    cached = tmp_path / "hub" / "checkpoints" / "weights.pth"
    cached.write_bytes(b"weights")
    assert cached_download(url) == cached
    assert sha256(cached) == hashlib.sha256(b"weights").hexdigest()


def test_the_squeezenet_at_hand_knows_images_apart(root: Path) -> None:
    """With real weights: ponies drawn with stripes are nearer to each other than to plain ones."""
    weights = root.parent / "shared" / "weights" / "squeezenet1_1_features.pth"
    if not weights.is_file():
        pytest.skip(f"no pretrained weights at {weights}")
    network = load_features(weights, CPU)
    assert network.weights_sha256.startswith("e833ed8b")
    stripes = [np.tile(np.uint8([[[40 * k, 0, 0]] * 4 + [[255] * 3] * 4]), (64, 8, 1)) for k in range(3)]
    flat = [np.full((64, 64, 3), 60 * k, np.uint8) for k in range(1, 4)]
    features = nn.functional.normalize(network.features(stripes + flat, "clean"))
    alike = features @ features.T
    assert alike[:3, :3].min() > alike[:3, 3:].max()
