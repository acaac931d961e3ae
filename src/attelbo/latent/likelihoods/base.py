"""What a likelihood is: p(x|z) from the decoder's output eta.

Shapes: n samples, B batch, (C, ...) data shape, P parameters for each dimension of x. The decoder's
output has the data's shape with P * C channels, parameter-major: ``eta.unflatten(-len(shape), (P, C))``.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

LEVELS = 256
"""Of 8-bit data."""


class Likelihood(nn.Module, ABC):
    """p(x|z). Subclasses take ``data_shape`` first, and optionally ``data_kind``; the model provides both.

    Args:
        data_shape: (C, ...).
    """

    data_shape: tuple[int, ...]
    n_parameters: int = 1
    """P."""
    discrete: ClassVar[bool] = True
    """Whether log p(x|z) is the log of a probability (not of a density)."""
    normalized: bool = True
    """Whether it is a normalized distribution of these data; if not, nothing computed from it is a bound."""
    n_levels: ClassVar[int]
    """L, the values that a dimension of x can take, 0, 1 / (L - 1), ..., 1, where it is discrete."""
    supports: frozenset[str]
    """The kinds of data it is a likelihood for: of "binary" {0, 1}, "levels" {0, 1/255, ..., 1}, "real"."""
    needs_mean: bool = False
    """Whether it is to be told the mean of the training rows before the first step, by ``learn_mean``."""

    def __init__(self, data_shape: Sequence[int]) -> None:
        super().__init__()
        self.data_shape = tuple(data_shape)

    @property
    def parameter_shape(self) -> tuple[int, ...]:
        """The shape that the decoder must give for one x: (P * C, ...)."""
        return (self.n_parameters * self.data_shape[0], *self.data_shape[1:])

    def split(self, eta: Tensor) -> tuple[Tensor, ...]:
        """The P parameters of each dimension of x: (..., P * C, ...) -> P views (..., C, ...)."""
        channels = -len(self.data_shape)
        return eta.unflatten(channels, (self.n_parameters, self.data_shape[0])).unbind(channels - 1)

    def learn_mean(self, mean: Tensor) -> None:
        """Called before the first step of a training, if ``needs_mean``, with the mean of its rows, (C, ...)."""

    @abstractmethod
    def log_prob(self, eta: Tensor, x: Tensor) -> Tensor:
        """log p(x|z) of x (B, C, ...) under eta (n, B, P * C, ...), summed over x: (n, B), nats."""

    def steady_log_prob(self, eta: Tensor, x: Tensor) -> Tensor:
        """``log_prob`` as in evaluation, without side effects on running averages, also while training."""
        return self.log_prob(eta, x)

    def log_table(self, eta: Tensor) -> Tensor:
        """log p of each of the L levels of every dimension of x, nats, for an entropy coder: eta (..., P * C, ...) ->
        (..., C, ..., L).

        Raises:
            NotImplementedError: there are none; only discrete likelihoods have them.
        """
        raise NotImplementedError(f"{type(self).__name__} has no levels")

    @abstractmethod
    def mean(self, eta: Tensor) -> Tensor:
        """E[x|z] in data units, eta (..., P * C, ...) -> (..., C, ...)."""

    @abstractmethod
    def sample(self, eta: Tensor) -> Tensor:
        """One x for each eta, (..., P * C, ...) -> (..., C, ...)."""


def all_levels(like: Tensor) -> Tensor:
    """0, 1/255, ..., 1, (256,), in the type and on the device of a tensor."""
    return torch.arange(LEVELS, dtype=like.dtype, device=like.device) / (LEVELS - 1)
