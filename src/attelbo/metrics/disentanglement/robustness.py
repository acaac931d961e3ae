"""Interventional robustness: how far a latent stays constant while its factor does, whatever the others do.

Suter, Miladinovic, Schoelkopf & Bauer 2019, "Robustly Disentangled Causal Mechanisms: Validating Deep Representations
for Interventional Robustness", sec. 4.

Shapes: N rows, D latent dimensions, F factors.
"""

import torch
from torch import Tensor

QUANTILE = 0.99
"""In place of the largest deviation, as in the authors' code: robust to single rows."""


def interventional_robustness(codes: Tensor, factors: Tensor) -> float:
    """The mean over latents, weighted by d, of max_k (1 - d_k / d), where d is the largest deviation of the latent from
    its mean over all rows, and d_k the same among rows that share a value of factor k, averaged over its values. 0 if
    all codes are constant. At most 1, but not at least 0: where factors interact, the rows that share a value may lie
    farther from their mean than any row from the mean of all.

    Differs from the paper: deviations within a value are 99 % quantiles, as in the authors' code.

    Args:
        codes: posterior means, (N, D).
        factors: classes, (N, F), int64.
    """
    codes = codes.double()
    largest = (codes - codes.mean(0)).abs().amax(0)  # (D,)
    if not bool((largest > 0).any()):
        return 0.0
    least = torch.full_like(largest, torch.inf)
    for factor in factors.unbind(1):
        groups = [codes[factor == value] for value in factor.unique()]
        deviations = torch.stack([_quantile((group - group.mean(0)).abs()) for group in groups]).mean(0)
        least = torch.minimum(least, deviations)
    return float(((largest - least) / largest.sum()).sum())  # each is weighted by its largest deviation


def _quantile(deviations: Tensor) -> Tensor:
    """(n, D) -> (D,)."""
    return deviations.quantile(QUANTILE, dim=0)
