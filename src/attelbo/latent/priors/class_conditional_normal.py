"""A normal prior for each class, for models that are given labels (Sohn, Lee & Yan 2015, "Learning Structured Output
Representation using Deep Conditional Generative Models": the prior is conditional too).

Shapes: n samples, B batch, E event shape, Y classes.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attelbo.latent.arithmetic import full_precision
from attelbo.latent.distributions import DiagonalNormal, Distribution, normal_kl
from attelbo.latent.priors.base import Density, Prior


class ClassConditionalNormal(Prior):
    """p(z|y) = N(z; mean_y, diag(std_y^2)), means and stds learned; p(z) = 1/Y sum_y p(z|y), a mixture.

    A model that is given labels uses p(z|y), by :meth:`given`, for which the KL of a diagonal normal is exact. For
    others this is a mixture of Gaussians with equal weights. Starts from unit stds and means drawn from N(0, 0.1^2 I).

    Args:
        latent_shape: E, the shape of one z.
        data_classes: Y, of the data.

    Raises:
        ValueError: the data have no classes.
    """

    def __init__(self, latent_shape: Sequence[int], data_classes: int | None) -> None:
        super().__init__()
        if data_classes is None:
            raise ValueError("a prior for each class takes data with classes, and these have none")
        self.latent_shape = tuple(latent_shape)
        self.data_classes = data_classes
        self.means = nn.Parameter(0.1 * torch.randn(data_classes, *self.latent_shape))
        self.log_stds = nn.Parameter(torch.zeros(data_classes, *self.latent_shape))

    @property
    def knows_labels(self) -> bool:
        return True

    def given(self, labels: Tensor) -> Density:
        with torch.autocast(labels.device.type, enabled=False):
            weights = full_precision(labels).to(self.means.dtype)
            return _Given(DiagonalNormal(*(torch.tensordot(weights, t, 1) for t in (self.means, self.log_stds))))

    def log_prob(self, z: Tensor) -> Tensor:
        rows = z.flatten(0, 1).unsqueeze(1).expand(-1, self.data_classes, *self.latent_shape)
        log_classes = DiagonalNormal(self.means, self.log_stds).log_prob(rows)  # (n B, Y)
        return (log_classes.logsumexp(-1) - math.log(self.data_classes)).unflatten(0, z.shape[:2])

    def sample(self, n: int) -> Tensor:
        y = torch.randint(self.data_classes, (n,), device=self.means.device)
        return DiagonalNormal(self.means[y], self.log_stds[y]).rsample(1)[0]


class _Given(Density):
    """p(z|y) of a batch of labels, one normal for each row."""

    def __init__(self, normals: DiagonalNormal) -> None:
        self.normals = normals

    def log_prob(self, z: Tensor) -> Tensor:
        return self.normals.log_prob(z)

    def sample(self, n: int) -> Tensor:
        assert n == len(self.normals.mean), "one sample for each label"
        return self.normals.rsample(1)[0]

    def exact_kl(self, q: Distribution) -> Tensor | None:
        """KL(q || p(z|y)) of a diagonal normal by dimension, (B, D), nats; of others not in closed form."""
        return normal_kl(q, self.normals).flatten(1) if isinstance(q, DiagonalNormal) else None
