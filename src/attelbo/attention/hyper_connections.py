"""Hyper-connections: n residual streams, which each layer reads, mixes and writes with learned numbers.

    h = a_1 x_1 + ... + a_n x_n,   x_j <- R_1j x_1 + ... + R_nj x_n + b_j f(norm(h))

A stack begins with n copies of its tokens and ends with their mean. At the start R is the identity, every b is 1 and
the k-th layer reads stream k modulo n, which makes it the residual network with norms before its layers; what each
layer reads is also all that tells the streams apart. Dynamic ones add to a, R and b what each token says:

    (a_i, R_i, b_i) + s tanh(norm(x_i) W),   W = 0 and s = 0.01 at the start

Source: Zhu, Huang, Huang, Zeng, Mao, Wu, Min & Zhou 2024, "Hyper-Connections" (arXiv:2409.19606), eqs. 1-2, 10-14;
static numbers do not decay, as there. Differs: the mean, where they end with the sum, and no learned scale in the norm
of the dynamic ones.

Shapes: n streams, B batch, T tokens, E features of a token.
"""

from collections.abc import Callable, Iterable
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attelbo.attention.norms import NormName
from attelbo.attention.residuals import Residual, ResidualForm
from attelbo.checks import check_at_least, check_choice

ResidualName = Literal[ResidualForm, "hyper", "dynamic_hyper"]
"""A form of ``Residual``, or a ``HyperConnection``."""


class HyperConnection(Residual):
    """Streams (n, B, T, E), and a layer that keeps the shape of tokens (B, T, E) -> streams (n, B, T, E).

    Args:
        dim: E.
        streams: n.
        dynamic: whether its numbers depend on the token.
        norm, bias, layer_scale, drop: as of ``Residual``.

    Raises:
        ValueError: no streams; those of ``Residual``.
    """

    def __init__(
        self,
        dim: int,
        streams: int = 4,
        dynamic: bool = False,
        *,
        norm: NormName = "layer",
        bias: bool = True,
        layer_scale: float | None = None,
        drop: float = 0.0,
    ) -> None:
        check_at_least(1, streams=streams)
        super().__init__(dim, "pre_norm", norm=norm, bias=bias, layer_scale=layer_scale, drop=drop)
        self.streams = streams
        # Vectors: optimizers shrink matrices, and these are no maps of features.
        self.width = nn.Parameter(torch.empty(streams * (streams + 1)))
        """a beside R, (n, 1 + n) row by row."""
        self.depth = nn.Parameter(torch.ones(streams))
        """b."""
        self.of_token = nn.Parameter(torch.zeros(dim, streams + 2)) if dynamic else None
        """W."""
        self.scales = nn.Parameter(torch.full((2,), 0.01)) if dynamic else None
        """s of a and R, and of b."""
        self.read(0)

    @torch.no_grad()
    def read(self, layer: int) -> None:
        """Be that of the k-th layer, at the start."""
        reads = F.one_hot(torch.tensor(layer % self.streams), self.streams).unsqueeze(1)
        self.width.copy_(torch.cat([reads, torch.eye(self.streams)], 1).flatten())

    def forward(self, x: Tensor, layer: Callable[[Tensor], Tensor]) -> Tensor:
        """x (n, B, T, E) -> (n, B, T, E)."""
        width, depth = self.width.view(self.streams, -1), self.depth
        if self.of_token is None or self.scales is None:
            read_mixed = torch.einsum("ij,ibte->jbte", width, x)
            depth = depth[:, None, None, None]
        else:
            said = torch.tanh(F.layer_norm(x, x.shape[-1:]) @ self.of_token)  # (n, B, T, n + 2)
            width = width[:, None, None] + self.scales[0] * said[..., :-1]
            read_mixed = torch.einsum("ibtj,ibte->jbte", width, x)
            depth = (depth[:, None, None] + self.scales[1] * said[..., -1]).unsqueeze(-1)
        return read_mixed[1:] + depth * self.branch(read_mixed[0], layer)


def residual_connection(
    dim: int,
    name: ResidualName,
    *,
    streams: int,
    norm: NormName,
    bias: bool,
    alpha: float,
    layer_scale: float | None,
    drop: float,
) -> Residual:
    """The connection of this name; arguments as of ``Residual`` and ``HyperConnection``.

    Raises:
        ValueError: there is none, and those of both.
    """
    check_choice("residual", name, ResidualName)
    if is_hyper(name):
        dynamic = name == "dynamic_hyper"
        return HyperConnection(dim, streams, dynamic, norm=norm, bias=bias, layer_scale=layer_scale, drop=drop)
    form = cast(ResidualForm, name)
    return Residual(dim, form, norm=norm, bias=bias, alpha=alpha, layer_scale=layer_scale, drop=drop)


def is_hyper(name: ResidualName) -> bool:
    """Whether a stack with it has streams of tokens."""
    return name in ("hyper", "dynamic_hyper")


def take_turns(connections: Iterable[Residual]) -> None:
    """Let those among connections, in the order of a stack's layers, begin with one stream after the other."""
    for k, connection in enumerate(each for each in connections if isinstance(each, HyperConnection)):
        connection.read(k)
