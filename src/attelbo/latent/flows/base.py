"""What a flow is: an invertible map of R^D onto itself and the determinant of its Jacobian.

If z has the density p, then f(z) has log p'(f(z)) = log p(z) - log |det df/dz| (Rezende & Mohamed 2015, "Variational
Inference with Normalizing Flows", eq. 5).

Shapes: n samples, B batch, D dimensions, P parameters given for each row.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from attelbo.checks import check_repetitions

_LOG_SCALE_BOUND = 3.0


class Flow(nn.Module, ABC):
    """z (n, B, D) -> z' (n, B, D).

    ``given``, (B, P), is what differs between rows: all parameters of a simple flow, or the context of a network; P = 0
    for a flow that is the same for all rows.
    """

    n_given: int = 0
    """P."""

    @abstractmethod
    def forward(self, z: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        """z' = f(z) and log |det dz'/dz|, (n, B)."""

    def inverse(self, z: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        """The z that f maps to what is passed, and log |det| of the inverse's Jacobian, (n, B).

        Raises:
            NotImplementedError: it cannot be computed exactly.
        """
        raise NotImplementedError(f"{type(self).__name__} has no inverse in closed form")

    @torch.no_grad()
    def start(self, weight: Tensor, bias: Tensor) -> None:
        """Change the initial weights (P, F) and bias (P,) of the linear map that gives ``given``.

        The flow then starts as the identity: a random one scrambles the latents for the decoder, and the posterior
        collapses.
        """


class Chain(Flow):
    """Flows one after the other, f_K(... f_1(z)); their parameters are concatenated.

    Args:
        n_flows: K.
        make: each flow from its place, 0 .. K - 1.

    Raises:
        ValueError: n_flows below 1.
    """

    def __init__(self, n_flows: int, make: Callable[[int], Flow]) -> None:
        super().__init__()
        check_repetitions(n_flows=n_flows)
        self.steps = nn.ModuleList(make(place) for place in range(n_flows))
        self.sizes = [flow.n_given for flow in self._steps]
        self.n_given = sum(self.sizes)

    def forward(self, z: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        log_det = z.new_zeros(())
        for flow, own in zip(self._steps, given.split(self.sizes, dim=-1), strict=True):
            z, step = flow(z, own)
            log_det = log_det + step
        return z, log_det

    def inverse(self, z: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        log_det = z.new_zeros(())
        for flow, own in zip(reversed(self._steps), reversed(given.split(self.sizes, dim=-1)), strict=True):
            z, step = flow.inverse(z, own)
            log_det = log_det + step
        return z, log_det

    def start(self, weight: Tensor, bias: Tensor) -> None:
        for flow, *own in zip(self._steps, weight.split(self.sizes), bias.split(self.sizes), strict=True):
            flow.start(*own)

    @property
    def _steps(self) -> list[Flow]:
        return cast("list[Flow]", list(self.steps))


class Inverse(Flow):
    """The other direction of a flow: ``forward`` and ``inverse`` change places."""

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = flow
        self.n_given = flow.n_given

    def forward(self, z: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        return self.flow.inverse(z, given)

    def inverse(self, z: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        return self.flow(z, given)


class Frozen(Flow):
    """Another flow, whose parameters get no gradient."""

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, z: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        return self._call(self.flow, z, given)

    def inverse(self, z: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        return self._call(Inverse(self.flow), z, given)

    @staticmethod
    def _call(function: nn.Module, z: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        detached = {name: parameter.detach() for name, parameter in function.named_parameters()}
        return torch.func.functional_call(function, detached, (z, given))


def check_hidden(hidden: Sequence[int]) -> None:
    """Raise ValueError unless there is a hidden layer and each has a unit."""
    if not hidden or min(hidden) < 1:
        raise ValueError(f"hidden must name at least one layer, each of at least 1 unit, got {list(hidden)}")


def bounded(log_scale: Tensor) -> Tensor:
    """Any number -> (-3, 3), smoothly, with slope 1 at 0: a step scales by 1/20 to 20, so that several together
    neither overflow nor lose all digits."""
    return _LOG_SCALE_BOUND * torch.tanh(log_scale / _LOG_SCALE_BOUND)
