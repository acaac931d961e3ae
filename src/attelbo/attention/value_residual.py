"""Value residuals: every layer after the first mixes its values with those of the first.

    v'_l = a_l v_1 + b_l v_l,   a_l and b_l learned, 1/2 at the beginning

Information about the tokens themselves thus reaches deep layers without passing through those in between.

Source: Zhou, Wu, Jiang, Obeid & Lan 2024, "Value Residual Learning" (arXiv:2410.17897), section 3: the ResFormer with
learned factors, one pair for each layer. A cache holds v_l; it is mixed with the cached values of the first layer at
each step.

Shapes: B batch, M heads of keys and values, S keys, D features of a value.
"""

import torch
from torch import Tensor, nn

from attelbo.attention.kernels import KernelName
from attelbo.attention.masks import Mask
from attelbo.attention.normalizers import Normalizer
from attelbo.attention.positions import Position
from attelbo.attention.scores import Score
from attelbo.attention.stacked import Handed, StackedAttention


class ValueResidualAttention(StackedAttention):
    """Multi-head attention whose values are mixed with those of the first layer of the stack.

    Args:
        follows: whether it comes after another layer of self-attention, which passes on the values of the first.
        dim, heads, kv_heads, memory_dim, score, normalizer, position, mask, soft_cap, dropout, bias, kernel: as in
            ``MultiHeadAttention``.

    Raises:
        ValueError: those of ``MultiHeadAttention``.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        follows: bool = False,
        kv_heads: int | None = None,
        memory_dim: int | None = None,
        score: Score | None = None,
        normalizer: Normalizer | None = None,
        position: Position | None = None,
        mask: Mask | None = None,
        soft_cap: float | None = None,
        dropout: float = 0.0,
        bias: bool = True,
        kernel: KernelName = "auto",
    ) -> None:
        super().__init__(
            dim,
            heads,
            kv_heads=kv_heads,
            memory_dim=memory_dim,
            score=score,
            normalizer=normalizer,
            position=position,
            mask=mask,
            soft_cap=soft_cap,
            dropout=dropout,
            bias=bias,
            kernel=kernel,
        )
        self.shares = nn.Parameter(torch.full((2,), 0.5)) if follows else None
        """a and b."""

    def continued(self, q: Tensor, k: Tensor, v: Tensor, handed: Handed) -> tuple[Tensor, Tensor, Tensor]:
        """As the base has it.

        Raises:
            ValueError: it follows other layers, but nothing was passed on.
        """
        if self.shares is None:
            handed.parts = (v,)
            return q, k, v
        if not handed.before:
            raise ValueError("handed: a layer that follows others mixes its values with those of the first, got none")
        (first,) = handed.parts = handed.before  # (B, M, S, D)
        of_first, own = self.shares.to(v.dtype)
        return q, k, of_first * first + own * v
