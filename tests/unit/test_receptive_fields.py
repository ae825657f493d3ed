"""`StyleGAN2Generator.encode_patches` encodes crops, with the features and gradients of the whole image."""

from collections.abc import Sequence

import pytest
import torch
from stylegan2_parts import random_image, recorded_inputs, small_generator
from torch import Tensor

from models.networks.stylegan2 import StyleGAN2Generator


def encode_whole(
    generator: StyleGAN2Generator, image: Tensor, layers: Sequence[int], patch_ids: Sequence[Tensor]
) -> list[Tensor]:
    """Return the features of `encode_patches`, from whole feature maps."""
    maps = generator(image, layers, encode_only=True)
    return [features.flatten(2)[:, :, ids] for features, ids in zip(maps, patch_ids, strict=True)]


@pytest.mark.parametrize(("layer", "n_downsampling"), [(0, 1), (1, 1), (2, 1), (3, 1), (3, 2)])
def test_features_of_every_position_are_equal(layer: int, n_downsampling: int) -> None:
    generator = small_generator(n_downsampling=n_downsampling)
    image = random_image(2, 3, 32, 36)
    with torch.no_grad():
        whole = generator(image, (layer,), encode_only=True)[0].flatten(2)
        alone = [generator.encode_patches(image, (layer,), [torch.tensor([i])])[0] for i in range(whole.shape[2])]
    torch.testing.assert_close(torch.cat(alone, 2), whole)


def test_gradients_are_equal() -> None:
    generator = small_generator()
    patch_ids = [torch.tensor([0, 700]), torch.tensor([35]), torch.tensor([511])]
    gradients = []
    for encode in (StyleGAN2Generator.encode_patches, encode_whole):
        image = random_image(2, 3, 32, 64).requires_grad_()
        loss = sum(vectors.square().sum() for vectors in encode(generator, image, (0, 2, 4), patch_ids))
        gradients.append(torch.autograd.grad(loss, (image, *generator.encoder.parameters()), allow_unused=True))
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("count", "sides", "encoded"),
    [
        (1, (64, 64), (2, 3, 26, 26)),
        (2, (64, 64), (4, 3, 26, 26)),
        (9, (64, 64), (2, 3, 64, 64)),
        (1, (62, 65), (2, 3, 62, 65)),
    ],
    ids=["one crop", "two crops", "crops would cost more", "sides that are not multiples"],
)
def test_encodes_as_few_pixels_as_possible(count: int, sides: tuple[int, int], encoded: tuple[int, ...]) -> None:
    generator = small_generator()
    image = random_image(2, 3, *sides)
    patch_ids = [torch.arange(count) * 5 + 900]
    with torch.no_grad():
        expected = encode_whole(generator, image, (4,), patch_ids)
        with recorded_inputs(generator.encoder.convs[0]) as shapes:
            found = generator.encode_patches(image, (4,), patch_ids)
    assert shapes == [encoded]
    torch.testing.assert_close(found, expected)
