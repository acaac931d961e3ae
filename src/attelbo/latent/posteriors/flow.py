"""Posteriors by normalizing flows from a diagonal normal: planar, radial, Sylvester, inverse autoregressive. For
sources see ``attelbo.latent.flows``.

Shapes: B batch, F the encoder's output shape, D = latent_dim, K flows.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from attelbo.checks import check_at_least
from attelbo.latent.arithmetic import bound_log_std, full_precision
from attelbo.latent.distributions import DiagonalNormal, InvertibleNormal, TransformedNormal
from attelbo.latent.flows import Chain, Flow, InverseAutoregressive, Planar, Radial, Sylvester
from attelbo.latent.posteriors.base import Posterior, flat_features


class FlowPosterior(Posterior):
    """z_0 ~ N(m(h), diag(s(h)^2)), z = f_K(... f_1(z_0)), with m, log s and the parameters of the flows one linear map
    of the features. ``log s`` is clamped to [-10, 10].

    Args:
        in_shape: F, the shape of h for one x.
        latent_dim: D, the number of dimensions of z.
        n_flows: K.
        make: each flow from its place, 0 .. K - 1.

    Raises:
        ValueError: latent_dim or n_flows below 1.
    """

    distribution = TransformedNormal

    def __init__(self, in_shape: Sequence[int], latent_dim: int, n_flows: int, make: Callable[[int], Flow]) -> None:
        super().__init__()
        check_at_least(1, latent_dim=latent_dim)
        self.latent_shape = (latent_dim,)
        self.flow = Chain(n_flows, make)
        self.head = nn.Linear(math.prod(in_shape), 2 * latent_dim + self.flow.n_given)
        self.flow.start(self.head.weight[2 * latent_dim :], self.head.bias[2 * latent_dim :])

    def forward(self, h: Tensor) -> TransformedNormal:
        sizes = [*self.latent_shape, *self.latent_shape, self.flow.n_given]
        mean, log_std, given = full_precision(self.head(flat_features(h))).split(sizes, dim=-1)
        base = DiagonalNormal(mean, bound_log_std(log_std))
        kind: Any = self.distribution  # typing.cast would hide the type from torch.compile
        return kind(base, self.flow, given)


class PlanarPosterior(FlowPosterior):
    """Planar flows with parameters from the encoder (Rezende & Mohamed 2015, algorithm 1).

    Each moves z along one direction. log q(z|x) is known for its own samples only.

    Args:
        in_shape: F, the shape of h for one x.
        latent_dim: D, the number of dimensions of z.
        n_flows: K; the head has 2 D + K (2 D + 1) outputs.

    Raises:
        ValueError: latent_dim or n_flows below 1.
    """

    def __init__(self, in_shape: Sequence[int], latent_dim: int, n_flows: int = 8) -> None:
        super().__init__(in_shape, latent_dim, n_flows, lambda _: Planar(latent_dim))


class RadialPosterior(FlowPosterior):
    """Radial flows with parameters from the encoder (Rezende & Mohamed 2015, algorithm 1).

    Each contracts or expands around one point. log q(z|x) is known in closed form.

    Args:
        in_shape: F, the shape of h for one x.
        latent_dim: D, the number of dimensions of z.
        n_flows: K; the head has 2 D + K (D + 2) outputs.

    Raises:
        ValueError: latent_dim or n_flows below 1.
    """

    distribution = InvertibleNormal

    def __init__(self, in_shape: Sequence[int], latent_dim: int, n_flows: int = 8) -> None:
        super().__init__(in_shape, latent_dim, n_flows, lambda _: Radial(latent_dim))


class SylvesterPosterior(FlowPosterior):
    """Sylvester flows by Householder reflections, with parameters from the encoder (van den Berg et al. 2018, H-SNF).

    Each moves z along D directions at once. log q(z|x) is known for its own samples only.

    Args:
        in_shape: F, the shape of h for one x.
        latent_dim: D, the number of dimensions of z.
        n_flows: K; the head has 2 D + K D (D + H + 2) outputs.
        n_reflections: H, of each flow.

    Raises:
        ValueError: latent_dim, n_flows or n_reflections below 1.
    """

    def __init__(self, in_shape: Sequence[int], latent_dim: int, n_flows: int = 4, n_reflections: int = 8) -> None:
        super().__init__(in_shape, latent_dim, n_flows, lambda _: Sylvester(latent_dim, n_reflections))


class InverseAutoregressivePosterior(FlowPosterior):
    """Inverse autoregressive flows with a context from the encoder (Kingma et al. 2016, algorithm 1).

    The order of the dimensions is reversed from one to the next. log q(z|x) of a given z takes D passes of each
    network, that of its own samples no further one.

    Args:
        in_shape: F, the shape of h for one x.
        latent_dim: D, the number of dimensions of z.
        n_flows: K; the head has 2 D + K hidden[0] outputs.
        hidden: units of each hidden layer of each flow.

    Raises:
        ValueError: latent_dim or n_flows below 1, no hidden layer, or one without a unit.
    """

    distribution = InvertibleNormal

    def __init__(
        self, in_shape: Sequence[int], latent_dim: int, n_flows: int = 2, hidden: Sequence[int] = (128,)
    ) -> None:
        super().__init__(
            in_shape, latent_dim, n_flows, lambda place: InverseAutoregressive(latent_dim, hidden, place % 2 == 1)
        )
