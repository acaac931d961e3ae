"""Transformer blocks: attention and a feed-forward network, each with a residual and a norm around it.

Source: Vaswani et al. 2017, section 3; norms before the layers: Xiong et al. 2020; RMSNorm: Zhang & Sennrich 2019;
SwiGLU: Shazeer 2020.

    pre-norm   x + layer(norm(x))        post-norm   norm(x + layer(x))

Shapes: B batch, T tokens, S tokens of the memory, E features of a token, H hidden features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from attelbo.attention.cache import KeyValueCache, KeyValues
from attelbo.attention.layer import AttentionLayer
from attelbo.attention.masks import Mask
from attelbo.checks import check_at_least

FeedForwardActivation = Literal["relu", "gelu", "swiglu"]
NormName = Literal["layer", "rms"]


class FeedForward(nn.Module):
    """Two linear layers on each token (B, T, E), with an activation, or a gate (SwiGLU), between them.

    Args:
        dim: E.
        hidden: H.
        activation: between the layers.
        dropout: behind the second one, in training.
        bias: whether the layers have one.
        hidden_dropout: between them, behind the activation, in training.

    Raises:
        ValueError: a size below 1, or no such activation.
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        activation: FeedForwardActivation = "gelu",
        dropout: float = 0.0,
        bias: bool = True,
        hidden_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_at_least(1, dim=dim, hidden=hidden)
        if activation not in ("relu", "gelu", "swiglu"):
            raise ValueError(f"activation must be relu, gelu or swiglu, got {activation!r}")
        self.activation = activation
        self.first = nn.Linear(dim, hidden * (2 if activation == "swiglu" else 1), bias=bias)
        self.second = nn.Linear(hidden, dim, bias=bias)
        self.dropout = nn.Dropout(dropout)
        self.hidden_dropout = nn.Dropout(hidden_dropout)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        if self.activation == "swiglu":
            value, gate = h.chunk(2, -1)
            h = value * F.silu(gate)
        else:
            h = F.gelu(h) if self.activation == "gelu" else F.relu(h)
        return self.dropout(self.second(self.hidden_dropout(h)))


@dataclass
class BlockCache:
    """What one block keeps while tokens are decoded one by one."""

    tokens: KeyValueCache
    """Keys and values of the tokens so far."""
    memory: KeyValues | None = None
    """Those of the memory, once they are projected."""

    def reorder(self, rows: Tensor) -> None:
        """Go on with these rows (B',) of the batch."""
        self.exchange(rows)
        if self.memory is not None:
            self.memory = KeyValues(*(part.index_select(0, rows) for part in self.memory))

    def exchange(self, rows: Tensor) -> None:
        """Go on with these rows (B,), each in the place of one with the same memory."""
        self.tokens.reorder(rows)


class TransformerBlock(nn.Module):
    """Self-attention, in a decoder cross-attention too, and a feed-forward network.

    Args:
        attention: between the tokens themselves.
        feed_forward: on each token.
        cross: to a memory; None: the block is an encoder's, or that of a language model.
        norm: LayerNorm or RMSNorm.
        bias: whether a LayerNorm has one.
        pre_norm: norms before the layers, or behind them as in the paper.
        dropout: on what attention adds, in training.

    Raises:
        ValueError: no such norm.
    """

    def __init__(
        self,
        attention: AttentionLayer,
        feed_forward: FeedForward,
        *,
        cross: AttentionLayer | None = None,
        norm: NormName = "layer",
        bias: bool = True,
        pre_norm: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.attention = attention
        self.attention_norm = norm_layer(norm, attention.dim, bias)
        self.cross = cross
        self.cross_norm = None if cross is None else norm_layer(norm, attention.dim, bias)
        self.feed_forward = feed_forward
        self.feed_forward_norm = norm_layer(norm, attention.dim, bias)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        *,
        mask: Mask | None = None,
        memory_mask: Mask | None = None,
        cache: BlockCache | None = None,
    ) -> Tensor:
        """x (B, T, E), for a decoder's block with a memory (B, S, E') -> (B, T, E).

        Args:
            x: the tokens.
            memory: what cross-attention attends to.
            mask: between the tokens, besides the one that the attention has itself.
            memory_mask: from the tokens to the memory.
            cache: the tokens before these.
        """
        tokens = None if cache is None else cache.tokens

        def attend(tokens_: Tensor) -> Tensor:
            return self.dropout(self.attention(tokens_, mask=mask, cache=tokens))

        x = self._around(x, self.attention_norm, attend)
        if self.cross is not None and self.cross_norm is not None:
            assert memory is not None, "a decoder's block needs a memory"
            cross, known = self.cross, self._memory_of(memory, cache)

            def look(tokens_: Tensor) -> Tensor:
                return self.dropout(cross(tokens_, known, mask=memory_mask))

            x = self._around(x, self.cross_norm, look)
        return self._around(x, self.feed_forward_norm, self.feed_forward)

    def residual_outputs(self) -> list[nn.Linear]:
        """The last layer of everything that is added to the tokens."""
        attentions = [self.attention] if self.cross is None else [self.attention, self.cross]
        return [*(attention.output for attention in attentions), self.feed_forward.second]

    def _around(self, x: Tensor, norm: nn.Module, layer: Callable[[Tensor], Tensor]) -> Tensor:
        return x + layer(norm(x)) if self.pre_norm else norm(x + layer(x))

    def _memory_of(self, memory: Tensor, cache: BlockCache | None) -> Tensor | KeyValues:
        """The memory, projected only once while decoding."""
        if cache is None or self.cross is None:
            return memory
        if cache.memory is None:
            cache.memory = self.cross.keys_values(memory)
        return cache.memory


def norm_layer(name: NormName, dim: int, bias: bool = True) -> nn.Module:
    """The norm with this name, over the E features of a token; ``bias`` is a LayerNorm's.

    Raises:
        ValueError: no such norm.
    """
    if name not in ("layer", "rms"):
        raise ValueError(f"norm must be layer or rms, got {name!r}")
    return nn.LayerNorm(dim, bias=bias) if name == "layer" else nn.RMSNorm(dim)
