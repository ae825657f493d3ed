"""Distribution metrics, compared with direct implementations of their definitions in float64 and with known values."""

import numpy as np
import pytest
import torch
from torch import Tensor

from util.errors import UserError
from util.metrics.distances import (
    KID_SUBSETS,
    check_min_images,
    frechet_distance,
    kid,
    precision_and_recall,
)


def features(images: int, width: int, seed: int, shift: float = 0.0) -> Tensor:
    """Return non-negative, correlated features, similar to those of networks."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).standard_normal((width, width)) * np.geomspace(1, 1e-2, width)
    return torch.from_numpy(np.maximum(rng.standard_normal((images, width)) @ mixing + shift, 0))


def direct_frechet(fake: Tensor, real: Tensor) -> float:
    """Use the symmetric root: Tr (C_1 C_2)^½ = Tr (C_1^½ C_2 C_1^½)^½, whose eigenvalues are real and not negative."""
    a, b = fake.numpy(), real.numpy()
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(cov_a)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov_b @ root), 0)).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * shared)


@pytest.mark.parametrize(("images", "width"), [(300, 32), (40, 64), (24, 24)])
def test_frechet_distance_matches_its_formula(images: int, width: int) -> None:
    fake, real = features(images, width, 0), features(images + 7, width, 1, 0.3)
    assert frechet_distance(fake, real) == pytest.approx(direct_frechet(fake, real), rel=1e-6)


@pytest.mark.parametrize(("images", "width"), [(300, 32), (40, 256)])
def test_frechet_distance_of_a_set_to_itself_is_zero(images: int, width: int) -> None:
    """Include few images: from the eigenvalues of the product, the result would be wrong in the fifth digit."""
    same = features(images, width, 0) * 10
    assert frechet_distance(same, same) == pytest.approx(0, abs=1e-8)


def test_frechet_distance_of_gaussians_matches_the_analytic_value() -> None:
    """Compare axis-parallel Gaussians: |difference of means|² + the sum of (difference of deviations)²."""
    rng = np.random.default_rng(0)
    sample = rng.standard_normal((500, 6))
    sample -= sample.mean(0)
    sample = sample @ np.linalg.inv(np.linalg.cholesky(np.cov(sample, rowvar=False))).T  # now exactly standard
    shift, deviations = np.arange(6.0), np.linspace(0.5, 3, 6)
    shifted, scaled = torch.from_numpy(sample + shift), torch.from_numpy(sample * deviations + shift)
    standard = torch.from_numpy(sample)
    assert frechet_distance(shifted, standard) == pytest.approx((shift**2).sum(), rel=1e-9)
    assert frechet_distance(scaled, standard) == pytest.approx((shift**2).sum() + ((deviations - 1) ** 2).sum(), rel=1e-9)


def test_frechet_distance_matches_torch_fidelity_if_that_is_exact() -> None:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    fake, real = features(200, 20, 0), features(150, 20, 1, 0.3)
    theirs = fid_statistics_to_metric(fid_features_to_statistics(fake), fid_features_to_statistics(real), verbose=False)
    assert frechet_distance(fake, real) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)


def direct_kernel(fake: np.ndarray, real: np.ndarray) -> float:
    """Return the unbiased squared MMD, summed pair by pair."""
    m, width = fake.shape

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / width + 1) ** 3)

    among_fake = sum(kernel(fake[i], fake[j]) for i in range(m) for j in range(m) if i != j)
    among_real = sum(kernel(real[i], real[j]) for i in range(m) for j in range(m) if i != j)
    across = sum(kernel(fake[i], real[j]) for i in range(m) for j in range(m))
    return (among_fake + among_real) / (m * (m - 1)) - 2 * across / m**2


def test_kid_matches_its_formula() -> None:
    fake, real = features(17, 12, 0), features(20, 12, 1, 0.5)
    rng = np.random.RandomState(3)
    subsets = [(rng.choice(17, 8, replace=False), rng.choice(20, 8, replace=False)) for _ in range(KID_SUBSETS)]
    direct = [direct_kernel(fake.numpy()[a], real.numpy()[b]) for a, b in subsets]
    found = kid(fake, real, seed=3)
    assert found.subset_size == 8
    assert found.mean == pytest.approx(np.mean(direct), rel=1e-6)
    assert found.std == pytest.approx(np.std(direct), rel=1e-6)


def test_kid_depends_on_its_seed_alone_and_leaves_the_global_rng_unchanged() -> None:
    fake, real = features(20, 8, 0), features(20, 8, 1)
    torch.manual_seed(5)
    np.random.seed(5)
    once = kid(fake, real, seed=1)
    after = torch.rand(3), np.random.rand(3)
    torch.manual_seed(5)
    np.random.seed(5)
    assert kid(fake, real, seed=1) == once != kid(fake, real, seed=2)
    torch.manual_seed(5)
    np.random.seed(5)
    assert torch.equal(torch.rand(3), after[0])
    assert np.array_equal(np.random.rand(3), after[1])


def test_kid_of_one_population_is_smaller_than_its_std() -> None:
    population = features(400, 16, 0)
    same = kid(population[:200], population[200:], seed=0)
    other = kid(population[:200], features(200, 16, 1, 1.0), seed=0)
    assert abs(same.mean) < same.std < other.mean


def direct_fraction(points: np.ndarray, around: np.ndarray) -> float:
    """Return the fraction of points within the radius of any of `around`: the distance to its third-nearest neighbor."""
    inside = 0
    for point in points:
        for i, center in enumerate(around):
            radius = sorted(np.linalg.norm(center - other) for j, other in enumerate(around) if j != i)[2]
            if np.linalg.norm(point - center) <= radius:
                inside += 1
                break
    return inside / len(points)


def test_precision_and_recall_match_their_definitions() -> None:
    fake, real = features(25, 6, 0), features(30, 6, 1, 0.4)
    precision, recall = precision_and_recall(fake, real)
    assert precision == pytest.approx(direct_fraction(fake.numpy(), real.numpy()), abs=1e-6)
    assert recall == pytest.approx(direct_fraction(real.numpy(), fake.numpy()), abs=1e-6)
    assert 0 < recall < precision or 0 < precision < recall


def test_precision_and_recall_of_known_cases() -> None:
    real = features(40, 5, 0)
    assert precision_and_recall(real, real) == (1, 1)
    assert precision_and_recall(real + 1000, real) == (0, 0)
    collapsed = real[:5].repeat(8, 1) + torch.linspace(0, 1e-9, 40, dtype=torch.float64)[:, None]
    precision, recall = precision_and_recall(collapsed, real)
    assert precision == 1  # all are real images
    assert recall < 0.2  # five of forty


def test_too_few_images_are_an_error() -> None:
    check_min_images(4, "real images")
    with pytest.raises(UserError, match=r"real images: 3 images, but .* at least 4"):
        check_min_images(3, "real images")
