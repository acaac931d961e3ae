"""Hierarchies: several layers of latents, each given those above it.

    p(x, z) = p(z_L) p(z_{L-1}|z_L) ... p(x|z)        q(z|x) = q(z_L|x) q(z_{L-1}|z_L, x) ...

A subclass implements one bottom-up pass over x, and a top-down pass over the layers, which at each of them calls a
*choice* for z, given q (if there is an x) and p. The choice distinguishes evidence (samples of q), reconstruction
(means of q), and sampling (draws from p).

Shapes: K samples, B batch, N = K B rows, L layers, E the event shape of a layer, D dimensions of all layers.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from attelbo.latent import DiagonalNormal, Evidence, Layered, Prior, normal_kl
from attelbo.latent.arithmetic import bound_log_std, sum_event
from attelbo.latent.control_variates import with_less_noise
from attelbo.models.latent_variable import LatentVariableModel

Above: TypeAlias = DiagonalNormal | Prior
"""p(z_l | layers above): normal, or for the topmost layer any prior."""

Choice: TypeAlias = Callable[[DiagonalNormal | None, Above], Tensor]
"""(q, p) of a layer -> its z, (N, *E)."""


class Layer(NamedTuple):
    """What the evidence needs of a layer."""

    z: Tensor
    """(N, *E)."""
    log_ratio: Tensor | None
    """log p(z) - log q(z), (N,), nats; None: not wanted."""
    kl: Tensor
    """KL(q || p) given the layers above, (N,), nats: exact, or where no closed form exists the sample's."""


class PosteriorSamples:
    """Chooses z ~ q and keeps the terms; a KL without a closed form is estimated with a control variate in training.

    Args:
        training: whether the model is training.
        log_ratios: whether they are needed where a KL is exact.
    """

    def __init__(self, training: bool, log_ratios: bool) -> None:
        self.training = training
        self.log_ratios = log_ratios
        self.layers: list[Layer] = []

    def __call__(self, q: DiagonalNormal | None, p: Above) -> Tensor:
        assert q is not None
        kl = _exact_kl(q, p)
        if kl is not None and not self.log_ratios:
            z = q.rsample(1)[0]
            self.layers.append(Layer(z, None, kl))
            return z
        z, log_q, reference = q.rsample_for_kl(1)  # (1, N, *E), (1, N)
        log_ratio = log_q - p.log_prob(z)
        if kl is None:
            kl = (with_less_noise(log_ratio, reference) if self.training else log_ratio)[0]
        self.layers.append(Layer(z[0], -log_ratio[0], kl))
        return z[0]


def _exact_kl(q: DiagonalNormal, p: Above) -> Tensor | None:
    if isinstance(p, DiagonalNormal):
        return sum_event(normal_kl(q, p), 1)
    kl = p.exact_kl(q)
    return None if kl is None else kl.sum(-1)


class PosteriorMeans:
    """Chooses the mean of q and keeps it."""

    def __init__(self) -> None:
        self.means: list[Tensor] = []

    def __call__(self, q: DiagonalNormal | None, p: Above) -> Tensor:
        assert q is not None
        self.means.append(q.mean)
        return q.mean


def prior_samples(n: int) -> Choice:
    """Chooses z ~ p, for n rows."""
    return lambda q, p: p.rsample(1)[0] if isinstance(p, DiagonalNormal) else p.sample(n)


def given(layers: list[Tensor]) -> Choice:
    """Chooses given values, from the top to the bottom, each (N, *E)."""
    rest: Iterator[Tensor] = iter(layers)
    return lambda q, p: next(rest)


class Hierarchy(LatentVariableModel):
    """A model with L layers of latents, ``layer_shapes`` (E of each) from the top to the bottom."""

    layer_shapes: list[tuple[int, ...]]

    @property
    def z_is_vector(self) -> bool:
        return all(len(shape) == 1 for shape in self.layer_shapes)

    @abstractmethod
    def bottom_up(self, x: Tensor) -> list[Tensor]:
        """The activations of x (B, C, H, W) for the layers' q: tensors of B rows."""

    @abstractmethod
    def descend(self, n: int, choose: Choice, activations: list[Tensor] | None) -> Tensor:
        """The top-down pass over the layers, for n rows: eta (n, P * C, H, W).

        Args:
            n: rows.
            choose: z of each layer.
            activations: of ``bottom_up``, for n rows; None: there is no x, and no q.
        """

    def evidence(
        self,
        x: Tensor,
        y: Tensor | None = None,
        n_samples: int = 1,
        *,
        log_weights: bool = False,
        stop_posterior: bool = False,
    ) -> Evidence:
        log_likelihood, layers = self._sample(x, self.bottom_up(x), n_samples, log_weights)
        shape = n_samples, len(x)
        kl = torch.stack([layer.kl for layer in layers], -1).unflatten(0, shape).mean(0)  # (B, L)
        z = torch.cat([layer.z.flatten(1) for layer in layers], -1).unflatten(0, shape)  # (K, B, D)
        weights = log_likelihood + self._log_ratio(layers, shape) if log_weights else None
        return Evidence(log_likelihood, kl, z, Layered(lambda: self.encode(x)), weights)

    def _sample(self, x: Tensor, activations: list[Tensor], n: int, log_ratios: bool) -> tuple[Tensor, list[Layer]]:
        """log p(x|z) of n samples of q for each x, (n, B), and their layers."""
        choose = PosteriorSamples(self.training, log_ratios)
        eta = self.descend(n * len(x), choose, [repeat(part, n) for part in activations])
        return self.likelihood.log_prob(eta.unflatten(0, (n, len(x))), x), choose.layers

    @staticmethod
    def _log_ratio(layers: list[Layer], shape: tuple[int, int]) -> Tensor:
        ratios = [layer.log_ratio for layer in layers if layer.log_ratio is not None]
        return torch.stack(ratios).sum(0).unflatten(0, shape)

    # -- what one does with a trained model --------------------------------------------------------

    def _at_means(self, x: Tensor) -> tuple[Tensor, Tensor]:
        choose = PosteriorMeans()
        eta = self.descend(len(x), choose, self.bottom_up(x))
        return eta, torch.cat([mean.flatten(1) for mean in choose.means], -1)

    @torch.no_grad()
    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The means of all layers, (B, D), from the top to the bottom, each given the means above it."""
        return self._at_means(x)[1]

    @torch.no_grad()
    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.likelihood.mean(self._at_means(x)[0])

    @torch.no_grad()
    def generate(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        sizes = [math.prod(shape) for shape in self.layer_shapes]
        layers = [part.unflatten(1, shape) for part, shape in zip(z.split(sizes, 1), self.layer_shapes, strict=True)]
        return self.likelihood.mean(self.descend(len(z), given(layers), None))

    def imagine(self, n: int, y: Tensor | None = None) -> Tensor:
        return self.descend(n, prior_samples(n), None)

    @torch.no_grad()
    def weight_sampler(self, x: Tensor, y: Tensor | None = None) -> Callable[[int], Tensor]:
        activations = self.bottom_up(x)

        @torch.no_grad()
        def draw(n_samples: int) -> Tensor:
            log_likelihood, layers = self._sample(x, activations, n_samples, log_ratios=True)
            return log_likelihood + self._log_ratio(layers, (n_samples, len(x)))

        return draw


def repeat(t: Tensor, n: int) -> Tensor:
    """(B, ...) -> (n * B, ...), the batch n times."""
    return t if n == 1 else t.expand(n, *t.shape).flatten(0, 1)


def split_normal(parameters: Tensor) -> DiagonalNormal:
    """The normal whose mean and log std, which is bounded, are the halves of the channels, (N, 2 C, ...)."""
    mean, log_std = parameters.chunk(2, dim=1)
    return DiagonalNormal(mean, bound_log_std(log_std))


def parameters_of(*modules: nn.Module) -> list[nn.Parameter]:
    """All parameters of several modules."""
    return [parameter for module in modules for parameter in module.parameters()]
