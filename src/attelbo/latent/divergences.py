"""Distances between two distributions that are known by samples alone.

The maximum mean discrepancy: Gretton et al. 2012, "A Kernel Two-Sample Test", lemma 6; the kernels: Tolstikhin et al.
2018, "Wasserstein Auto-Encoders", sec. 4. The sliced Wasserstein distance: Kolouri et al. 2018, "Sliced-Wasserstein
Auto-Encoder" (arXiv:1804.01947), eq. 7-9.

Shapes: n independent sets, B samples in a set, D dimensions, L directions.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from attelbo.latent.arithmetic import full_precision

Kernel = Literal["imq", "rbf"]
"""With C = 2 D s and the mean over the seven scales s: imq is C / (C + d^2), rbf is exp(-d^2 / C), d the distance."""

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Those of the WAE authors' code. 2 D is the mean d^2 between two draws of N(0, I)."""


def maximum_mean_discrepancy(z: Tensor, other: Tensor, kernel: Kernel) -> Tensor:
    """The unbiased estimate of MMD^2 between the distributions of z and other, (n, B, D) each: (n,).

    Between -1 and 2, near 0 where the distributions are equal. For sets of one sample, where it is not defined, the
    terms within sets are 0.
    """
    z, other = full_precision(z), full_precision(other)
    batch, dimensions = z.shape[-2:]
    # One product for all pairs, in full precision: autocast would round it to bfloat16.
    with torch.autocast(z.device.type, enabled=False):
        both = torch.cat([z, other], dim=-2)  # (n, 2 B, D)
        norms = both.square().sum(-1)
        products = both @ both.mT
    squared = (norms.unsqueeze(-1) + norms.unsqueeze(-2) - 2 * products).clamp(min=0)
    values = _mean_over_scales(squared, 2.0 * dimensions, kernel)  # (n, 2 B, 2 B)
    # +1 within a set, -1 across; the diagonal is left out.
    sign = torch.ones(2 * batch, device=z.device, dtype=z.dtype)
    sign[batch:] = -1
    pairs = max(batch * (batch - 1), 1)
    same = torch.outer(sign, sign).clamp(min=0) - torch.eye(2 * batch, device=z.device, dtype=z.dtype)
    across = torch.outer(sign, sign).clamp(max=0)
    return (values * (same / pairs + across / (batch * batch))).sum((-2, -1))


def _mean_over_scales(squared: Tensor, base: float, kernel: Kernel) -> Tensor:
    values = [
        (-squared / (base * scale)).exp() if kernel == "rbf" else base * scale / (base * scale + squared)
        for scale in SCALES
    ]
    return torch.stack(values).mean(0)


def sliced_wasserstein(z: Tensor, other: Tensor, n_projections: int) -> Tensor:
    """The mean over ``n_projections`` random directions of the squared 2-Wasserstein distance between the projections
    of z and other, (n, B, D) each: (n,). In one dimension optimal transport pairs the sorted samples."""
    z, other = full_precision(z), full_precision(other)
    directions = F.normalize(torch.randn(z.shape[-1], n_projections, dtype=z.dtype, device=z.device), dim=0)
    with torch.autocast(z.device.type, enabled=False):
        projected = torch.stack([z, other]) @ directions  # (2, n, B, L)
    first, second = projected.sort(dim=-2).values.unbind(0)
    return (first - second).square().mean((-2, -1))
