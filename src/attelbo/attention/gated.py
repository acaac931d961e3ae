"""Gated attention: a sigmoid gate on the outputs of the heads, computed from the query token.

    output = (sigmoid(x W_g) * [head_1, ..., head_N]) W_o

Source: Qiu et al. 2025, "Gated Attention for Large Language Models: Non-linearity, Sparsity, and Attention-Sink-Free",
section 2.2, eq. 5, at position G1 (after the attention), which they found best; x is the input of the query projection.

Shapes: B batch, T queries, E features of a token, N heads, D features of a head.
"""

from typing import Literal, Unpack

from torch import Tensor, nn

from attelbo.attention.layer import join_heads
from attelbo.attention.multi_head import AttentionOptions, MultiHeadAttention
from attelbo.checks import check_choice

Gate = Literal["head", "element"]


class GatedAttention(MultiHeadAttention):
    """Multi-head attention whose heads pass a gate between 0 and 1 before they are combined.

    Args:
        gate: one for each "head", or one for each "element" of the heads.
        dim, heads, options: as in ``MultiHeadAttention``.

    Raises:
        ValueError: no such gate; those of ``MultiHeadAttention``.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        gate: Gate = "element",
        **options: Unpack[AttentionOptions],
    ) -> None:
        check_choice("gate", gate, Gate)
        super().__init__(dim, heads, **options)
        n_gates = heads if gate == "head" else self.output.in_features
        self.gate = nn.Linear(dim, n_gates, bias=self.output.bias is not None)
        nn.init.xavier_uniform_(self.gate.weight)
        if self.gate.bias is not None:
            nn.init.zeros_(self.gate.bias)

    def combine(self, heads: Tensor, query: Tensor) -> Tensor:
        share = self.gate(query).sigmoid().unflatten(-1, (self.heads, -1))  # (B, T, N, 1 or D)
        return self.output(join_heads(heads * share.transpose(1, 2)))
