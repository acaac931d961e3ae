"""Models whose latents represent x alone: they encode, reconstruct and sample.

Shapes: K samples of z for each x, B batch, (C, H, W) image, D dimensions of z.
Units: nats.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from attelbo.data.batch import Batch
from attelbo.latent import Evidence
from attelbo.latent.spaces import Real, Space
from attelbo.models.evidence_model import EvidenceModel


class LatentVariableModel(EvidenceModel):
    """A model whose latents represent x alone."""

    encodes_labels: ClassVar[bool] = False
    """Whether ``encode`` gets the label: its result then does not depend on x alone."""

    @property
    def space(self) -> Space:
        """Where one z lives: among real numbers, unless a subclass knows better."""
        return Real((self.n_latent,))

    @property
    def z_is_vector(self) -> bool:
        """Whether z are numbers or choices that each describe the whole of x: neither a map, nor codes, nor objects."""
        return False

    @property
    def known_classes(self) -> int | None:
        """The number of classes that it can be conditioned on in sampling; None: none."""
        return None

    @abstractmethod
    def evidence(
        self,
        x: Tensor,
        y: Tensor | None = None,
        n_samples: int = 1,
        *,
        log_weights: bool = False,
        stop_posterior: bool = False,
    ) -> Evidence:
        """The evidence terms of x (B, C, H, W) with K = ``n_samples`` samples of z for each row.

        Args:
            x: the data.
            y: their labels (B,), for models that use labels.
            n_samples: K.
            log_weights: whether to compute them.
            stop_posterior: whether log q(z|x) in them reaches the parameters of q through z only.
        """

    def evidence_of(self, batch: Batch) -> Evidence:
        objective = self.objective
        return self.evidence(
            batch.x,
            batch.y,
            objective.n_samples,
            log_weights=objective.needs_log_weights,
            stop_posterior=objective.stops_posterior,
        )

    @abstractmethod
    def weight_sampler(self, x: Tensor, y: Tensor | None = None) -> Callable[[int], Tensor]:
        """:meth:`weight_sampler_of` of x, (B, C, H, W)."""

    def weight_sampler_of(self, batch: Batch) -> Callable[[int], Tensor]:
        return self.weight_sampler(batch.x, batch.y)

    # -- what one does with a trained model --------------------------------------------------------

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """:meth:`reconstruct`."""
        return self.reconstruct(x, y)

    def predicted(self, batch: Batch) -> Tensor:
        """The latents that :meth:`encode` gives, (B, D)."""
        return self.encode(batch.x, batch.y)

    @abstractmethod
    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The centers of the posteriors of x (B, C, H, W), their means where latents are real numbers, flat: (B, D)."""

    @abstractmethod
    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """E[x | z] at the center of the posterior of each x (B, C, H, W), the same shape, in data units."""

    @abstractmethod
    def generate(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """E[x | z] of z (n, D), flat as ``encode`` gives it: (n, C, H, W), in data units."""

    @abstractmethod
    def imagine(self, n: int, y: Tensor | None = None) -> Tensor:
        """The likelihood's parameters eta (n, P * C, H, W) of n latents of the prior."""

    @torch.no_grad()
    def sample(self, n: int, y: Tensor | None = None) -> Tensor:
        """n images E[x | z], z from the prior: (n, C, H, W), in data units."""
        return self.likelihood.mean(self.imagine(n, y))

    @torch.no_grad()
    def draw(self, n: int, y: Tensor | None = None) -> Tensor:
        """n of x ~ p(x | z), z from the prior: (n, C, H, W), in data units; with the noise that ``sample`` averages."""
        return self.likelihood.sample(self.imagine(n, y))
