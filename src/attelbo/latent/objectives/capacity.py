"""A KL that is held at a target number of nats.

Burgess et al. 2018, "Understanding disentangling in beta-VAE" (arXiv:1804.03599), eq. 8; a target for each kind of
latents: Dupont 2018, "Learning Disentangled Joint Continuous and Discrete Representations" (arXiv:1804.00104), eq. 7.

Shapes: B batch, G groups of latents.
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
from attelbo.latent.spaces import OneHot, Product, Space


class Capacity(Objective):
    """loss = mean_b(-E_q[log p(x|z)]) + gamma |mean_b KL - C|, nats.

    Where categorical latents have their own capacity C', the KL above is that of the other latents, and gamma |mean_b
    KL_choices - C'| is added.

    The loss selects the best epoch where capacities are constant. While one grows, losses of two epochs are those of
    two aims, and what is wanted is the last one: the last epoch is taken.

    Args:
        space: where z lives.
        capacity: C, nats: a number or a schedule (``attelbo.latent.schedules``); the papers have it grow from 0.
        discrete_capacity: C', the same for categorical latents; None: C is for all latents.
        gamma: weight of the constraint; below C each nat of KL is rewarded by gamma nats, informative or not.
        n_samples: K, samples of z for each x.

    Raises:
        ValueError: a number that is negative or not finite, n_samples below 1, or a discrete_capacity without both
            categorical and other latents.
    """

    _is_choice: Tensor

    def __init__(
        self,
        space: Space,
        capacity: Spec | float = 10.0,
        discrete_capacity: Spec | float | None = None,
        gamma: float = 2.0,
        n_samples: int = 1,
    ) -> None:
        super().__init__()
        check_at_least(1, n_samples=n_samples)
        check_not_negative(gamma=gamma)
        self.n_samples = n_samples
        self.gamma = gamma
        self.capacity = Scheduled(capacity, "capacity")
        self.discrete_capacity = None
        if discrete_capacity is not None:
            self.discrete_capacity = Scheduled(discrete_capacity, "discrete_capacity")
            self.register_buffer("_is_choice", _choices(space), persistent=False)

    # Not an attribute: stacked replicas may differ in their capacities, but in numbers only.
    @property
    def watched(self) -> Literal["elbo", "loss"] | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        capacities = [self.capacity] + ([] if self.discrete_capacity is None else [self.discrete_capacity])
        return "loss" if all(first == last for first, last in (own.ends for own in capacities)) else None

    def at_step(self, step: int, total_steps: int) -> None:
        self.capacity.at_step(step, total_steps)
        if self.discrete_capacity is not None:
            self.discrete_capacity.at_step(step, total_steps)

    def forward(self, evidence: Evidence) -> Tensor:
        if self.discrete_capacity is None:
            excess = (evidence.rate - self.capacity.value).abs()
        else:
            discrete = torch.where(self._is_choice, evidence.mean_kl, 0.0).sum()
            excess = (evidence.rate - discrete - self.capacity.value).abs()
            excess = excess + (discrete - self.discrete_capacity.value).abs()
        return evidence.distortion + self.gamma * excess


def _choices(space: Space) -> Tensor:
    """Which groups of KL belong to categorical latents, (G,): one group for each categorical, and for each real
    number."""
    parts = space.parts if isinstance(space, Product) else (space,)
    kinds = [isinstance(part, OneHot) for part in parts]
    if all(kinds) or not any(kinds):
        raise ValueError(f"discrete_capacity is for choices beside other latents; there are {space}")
    sizes = [part.shape[0] if isinstance(part, OneHot) else math.prod(part.shape) for part in parts]
    return torch.tensor(kinds).repeat_interleave(torch.tensor(sizes))
