"""Pooling: from the tokens of a row to one vector.

Shapes: B batch, T tokens, O tokens that the pooling adds, E features of a token, U hidden units.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attelbo.attention import Softmax
from attelbo.checks import check_at_least, check_not_negative


class Pooling(nn.Module, ABC):
    """Tokens (B, T, E) -> (B, E), without padding."""

    n_own: int = 0
    """O, tokens that it puts in front of the others before the network."""

    def join(self, x: Tensor) -> Tensor:
        """The tokens x (B, T, E) with the pooling's own in front, (B, O + T, E): before the network."""
        return x

    @abstractmethod
    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """The network's output (B, O + T, E) -> (B, E).

        Args:
            x: the tokens.
            valid: which are not padding, (B, O + T), bool; all if None.
        """


class ClassToken(Pooling):
    """A learned token that goes through the network with the others, and whose output represents them.

    Registers may go with it: further learned tokens, whose outputs are discarded, in which the network can store global
    information.

    Source: Devlin et al. 2019 (BERT), section 3; Dosovitskiy et al. 2021, eqs. 1 and 4; registers: Darcet et al. 2024,
    "Vision Transformers Need Registers", section 2.2.

    Args:
        dim: E.
        std: the standard deviation of their initial values.
        registers: their number, O - 1.

    Raises:
        ValueError: ``registers`` below 0.
    """

    def __init__(self, dim: int, std: float = 0.02, registers: int = 0) -> None:
        super().__init__()
        check_at_least(0, registers=registers)
        check_not_negative(std=std)
        self.n_own = 1 + registers
        self.token = nn.Parameter(std * torch.randn(dim))
        self.registers = nn.Parameter(std * torch.randn(registers, dim)) if registers else None

    def join(self, x: Tensor) -> Tensor:
        own = self.token.unsqueeze(0)
        if self.registers is not None:
            own = torch.cat([own, self.registers])
        return torch.cat([own.to(x.dtype).expand(len(x), -1, -1), x], 1)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        return x[:, 0]


class MeanPooling(Pooling):
    """The mean over the tokens that are not padding; zeros if there is none."""

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        if valid is None:
            return x.mean(1)
        total = x.masked_fill(~valid.unsqueeze(-1), 0.0).sum(1)
        return total / valid.sum(1, keepdim=True).clamp_min(1)


class AttentionPooling(Pooling):
    """The mean of the tokens under learned weights.

        u_t = tanh(W h_t + b),   a = softmax_t(u_t . u),   pooled = sum_t a_t h_t

    Source: Yang et al. 2016, "Hierarchical Attention Networks for Document Classification", eqs. 5 - 7: additive
    attention whose query u is a parameter. Zeros where there is no token.

    Args:
        dim: E.
        hidden: U; E if None.

    Raises:
        ValueError: ``hidden`` is below 1.
    """

    def __init__(self, dim: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = dim if hidden is None else hidden
        check_at_least(1, hidden=hidden)
        self.key = nn.Linear(dim, hidden)
        self.query = nn.Linear(hidden, 1, bias=False)
        self.normalizer = Softmax()

    def weights(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """a of tokens x (B, T, E), in the shape of attention weights: (B, 1, 1, T)."""
        scores = self.query(torch.tanh(self.key(x))).transpose(1, 2).unsqueeze(1)
        return self.normalizer(scores, None if valid is None else valid[:, None, None])

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        if valid is not None:
            x = x.masked_fill(~valid.unsqueeze(-1), 0.0)  # a weight of zero would not exclude NaN
        return (self.weights(x, valid)[:, 0] @ x)[:, 0]


def with_own(valid: Tensor | None, pooling: Pooling) -> Tensor | None:
    """Which tokens are not padding, (B, T), with the pooling's own in front: (B, O + T)."""
    return valid if valid is None or not pooling.n_own else F.pad(valid, (pooling.n_own, 0), value=True)
