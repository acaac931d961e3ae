"""The evidence lower bound, with a weight on the KL and free bits.

Kingma & Welling 2014, eq. 3; the weight: Higgins et al. 2017, "beta-VAE", eq. 4; free bits: Kingma et
al. 2016, "Improved Variational Inference with Inverse Autoregressive Flow", eq. 15.

Shapes: K samples, B batch, G groups of latents.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from attelbo.building import Spec
from attelbo.checks import check_at_least, check_not_negative
from attelbo.latent.evidence import Evidence
from attelbo.latent.objectives.base import Objective
from attelbo.latent.scheduled import Scheduled


class ELBO(Objective):
    """loss = mean_b(-E_q[log p(x|z)]) + weight * sum_g max(free_bits, mean_b KL_g), nats.

    With weight 1 and no free bits, the negative of ``Evidence.elbo``, which neither of them affects: the reported ELBO
    stays a bound, whatever was optimized. It selects the best epoch where the weight ends at 1; in a run that goes to
    beta = 4 it would select an epoch near beta = 1. There the loss does, if the weight is constant, or else the last
    epoch is taken.

    Args:
        weight: of the KL: a number or a schedule (``attelbo.latent.schedules``).
        free_bits: the KL in nats (in spite of the name) of each group, averaged over the batch, below which it is not
            penalized; 0: none.
        n_samples: K, samples of z for each x.

    Raises:
        ValueError: a negative weight or free_bits, or n_samples below 1.
    """

    def __init__(self, weight: Spec | float = 1.0, free_bits: float = 0.0, n_samples: int = 1) -> None:
        super().__init__()
        check_at_least(1, n_samples=n_samples)
        check_not_negative(free_bits=free_bits)
        self.n_samples = n_samples
        self.free_bits = free_bits
        self.has_free_bits = free_bits > 0  # fixed, since replicas may differ in the number
        self.weight = Scheduled(weight, "weight")

    # Not an attribute: stacked replicas may differ in their weights, but in numbers only.
    @property
    def watched(self) -> Literal["elbo", "loss"] | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        first, last = self.weight.ends
        return "elbo" if math.isclose(last, 1, rel_tol=1e-6) else "loss" if first == last else None

    def at_step(self, step: int, total_steps: int) -> None:
        self.weight.at_step(step, total_steps)

    def forward(self, evidence: Evidence) -> Tensor:
        rate = evidence.mean_kl.clamp(min=self.free_bits).sum() if self.has_free_bits else evidence.rate
        return torch.addcmul(evidence.distortion, self.weight.value, rate)
