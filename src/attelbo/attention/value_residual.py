"""Value residuals: every layer after the first mixes its values with those of the first.

    v'_l = a_l v_1 + b_l v_l,   a_l and b_l learned, 1/2 at the beginning

Information about the tokens themselves thus reaches deep layers without passing through those in between.

Source: Zhou, Wu, Jiang, Obeid & Lan 2024, "Value Residual Learning" (arXiv:2410.17897), section 3: the ResFormer with
learned factors, one pair for each layer. A cache holds v_l; it is mixed with the cached values of the first layer at
each step.

Shapes: B batch, M heads of keys and values, S keys, D features of a value.
"""

from typing import Unpack

import torch
from torch import Tensor, nn

from attelbo.attention.multi_head import AttentionOptions
from attelbo.attention.stacked import Handed, StackedAttention


class ValueResidualAttention(StackedAttention):
    """Multi-head attention whose values are mixed with those of the first layer of the stack.

    Args:
        follows: whether it comes after another layer of self-attention, which passes on the values of the first.
        dim, heads, options: as in ``MultiHeadAttention``.

    Raises:
        ValueError: those of ``MultiHeadAttention``.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        follows: bool = False,
        **options: Unpack[AttentionOptions],
    ) -> None:
        super().__init__(dim, heads, **options)
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
