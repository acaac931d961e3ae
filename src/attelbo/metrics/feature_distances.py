"""Distances between two sets of images in the feature space of a network.

- Frechet distance between normal distributions with the sets' moments: Dowson & Landau 1982; of Inception features it
  is the FID of Heusel et al. 2017.
- Kernel distance: the squared maximum mean discrepancy, kernel (x.y / D + 1)^3, unbiased: Binkowski et al. 2018,
  "Demystifying MMD GANs"; of Inception features it is the KID.

Values from different networks, or Frechet distances with different numbers of images, are not comparable.

Shapes: N and M images, D features.
"""

import torch
from torch import Tensor

_ROWS_AT_ONCE = 1024


def frechet_distance(features: Tensor, others: Tensor) -> float:
    """|m - m'|^2 + tr(S + S' - 2 (S S')^(1/2)) with means m and covariances S.

    Biased upwards for finite sets, by a term of order 1 / N: two sets from one source are not at distance 0.

    Args:
        features: (N, D), N at least 2.
        others: (M, D), M at least 2.

    Raises:
        ValueError: fewer than two images.
    """
    _at_least_two(features, others)
    (mean, covariance), (other_mean, other_covariance) = _moments(features), _moments(others)
    # (S S')^(1/2) has the trace of (S^(1/2) S' S^(1/2))^(1/2), which is symmetric, though S S' is not.
    values, vectors = torch.linalg.eigh(covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ other_covariance @ root).clamp(min=0).sqrt().sum()
    distance = (mean - other_mean).square().sum() + covariance.trace() + other_covariance.trace() - 2 * cross
    return float(distance.clamp(min=0))


def kernel_distance(features: Tensor, others: Tensor) -> float:
    """The unbiased estimate of the squared maximum mean discrepancy: 0 in expectation for sets from one source, so it
    may be negative.

    Args:
        features: (N, D), N at least 2.
        others: (M, D), M at least 2.

    Raises:
        ValueError: fewer than two images.
    """
    _at_least_two(features, others)
    x, y = features.double(), others.double()
    within = [(_kernel_sum(a, a) - _kernel(a, a, paired=True).sum()) / (len(a) * (len(a) - 1)) for a in (x, y)]
    return float(within[0] + within[1] - 2 * _kernel_sum(x, y) / (len(x) * len(y)))


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and unbiased covariance (D, D), float64."""
    x = features.double()
    centered = x - x.mean(0)
    return x.mean(0), centered.T @ centered / (len(x) - 1)


def _kernel(x: Tensor, y: Tensor, paired: bool = False) -> Tensor:
    products = (x * y).sum(1) if paired else x @ y.T
    return (products / x.shape[1] + 1) ** 3


def _kernel_sum(x: Tensor, y: Tensor) -> Tensor:
    """Over all pairs, in bounded memory."""
    return torch.stack([_kernel(part, y).sum() for part in x.split(_ROWS_AT_ONCE)]).sum()


def _at_least_two(*sets: Tensor) -> None:
    for features in sets:
        if len(features) < 2:
            raise ValueError(f"a distance between sets takes at least 2 images of each, got {len(features)}")
