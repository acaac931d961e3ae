"""Transformer blocks: attention and a feed-forward network, each with a residual around it.

Source: Vaswani et al. 2017, section 3; gates: Shazeer 2020, "GLU Variants Improve Transformer", eqs. 5-6; the square of
the ReLU: So et al. 2021 (Primer), section 4; half a feed-forward network on either side of attention: Lu et al. 2019,
"Understanding and Improving Transformer From a Multi-Particle Dynamic System Point of View" (Macaron), section 3.

Shapes: B batch, T tokens, S tokens of the memory, E features of a token, H hidden features.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from attelbo.attention.cache import KeyValueCache, KeyValues
from attelbo.attention.hyper_connections import ResidualName, residual_connection
from attelbo.attention.layer import AttentionLayer
from attelbo.attention.masks import Mask, merged
from attelbo.attention.norms import NormName
from attelbo.attention.residuals import Residual
from attelbo.attention.shifted import TokenShift
from attelbo.attention.stacked import Handed, StackedAttention
from attelbo.checks import check_at_least, check_below_one, check_choice

Layer = Callable[[Tensor], Tensor]
FeedForwardActivation = Literal["relu", "gelu", "relu2", "reglu", "geglu", "swiglu"]

_GATES: dict[str, Callable[[Tensor], Tensor]] = {"reglu": F.relu, "geglu": F.gelu, "swiglu": F.silu}
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "relu2": lambda h: F.relu(h).square(),
}


class FeedForward(nn.Module):
    """Two linear layers on each token (B, T, E), with an activation or a gate between them.

    The first layer of a gate makes 2 H features: H values and H gates. For as many parameters as without a gate, H has
    to be two thirds as large.

    Args:
        dim: E.
        hidden: H.
        activation: between the layers: "relu", "gelu" or the square of the ReLU ("relu2"); or a gate of ReLU ("reglu"),
            GELU ("geglu") or SiLU ("swiglu").
        dropout: after the second one, in training.
        bias: whether the layers have one.
        hidden_dropout: between them, after the activation, in training.

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
        check_choice("activation", activation, FeedForwardActivation)
        self.activation = activation
        self.first = nn.Linear(dim, hidden * (2 if activation in _GATES else 1), bias=bias)
        self.second = nn.Linear(hidden, dim, bias=bias)
        self.dropout = nn.Dropout(dropout)
        self.hidden_dropout = nn.Dropout(hidden_dropout)
        self.share = 1.0
        """What is made is multiplied with it."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        if self.activation in _GATES:
            value, gate = h.chunk(2, -1)
            h = value * _GATES[self.activation](gate)
        else:
            h = _ACTIVATIONS[self.activation](h)
        made = self.dropout(self.second(self.hidden_dropout(h)))
        return made if self.share == 1 else self.share * made

    def reset_parameters(self, gain: float = 1.0) -> None:
        """Glorot-uniform with this gain, biases zero; new ones are torch's own."""
        for layer in (self.first, self.second):
            nn.init.xavier_uniform_(layer.weight, gain)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


@dataclass
class BlockCache:
    """The cache of one block in decoding token by token."""

    tokens: KeyValueCache
    """Keys and values of the tokens so far."""
    memory: KeyValues | None = None
    """Keys and values of the memory, once they are projected."""
    last: dict[str, Tensor] = field(default_factory=dict)
    """Of a token shift, what the layers have read of the last token."""

    def reorder(self, rows: Tensor) -> None:
        """Go on with these rows (B',) of the batch."""
        self.exchange(rows)
        if self.memory is not None:
            self.memory = KeyValues(*(part.index_select(0, rows) for part in self.memory))

    def exchange(self, rows: Tensor) -> None:
        """Go on with these rows (B,), each replacing one with the same memory."""
        self.tokens.reorder(rows)
        self.last = {layer: read.index_select(0, rows) for layer, read in self.last.items()}


class TransformerBlock(nn.Module):
    """Self-attention, in a decoder cross-attention too, and a feed-forward network.

    Args:
        attention: between the tokens themselves.
        feed_forward: on each token.
        cross: to a memory; None: the block is an encoder's, or that of a language model.
        norm: of the tokens, see ``norms``.
        bias: whether norms have one.
        residual: how their outputs are added to the tokens, see ``residuals``; with ``hyper_connections`` the block is
            one between streams (n, B, T, E).
        alpha: of deepnorm.
        layer_scale: the initial learned factor of each feature of a branch; None: no factor.
        dropout: on the output of attention, in training.
        drop_path: the probability with which attention, and then the feed-forward network, adds nothing to a row.
        macaron: whether there is another feed-forward network before attention, of the same sizes; each adds half of
            what it makes.
        streams: n of hyper-connections.
        shift: the share of features that attention and feed-forward networks read of the token before.

    Raises:
        ValueError: no such norm or residual, a number out of range, or two learned factors; DeepNorm with two
            feed-forward networks.
    """

    def __init__(
        self,
        attention: AttentionLayer,
        feed_forward: FeedForward,
        *,
        cross: AttentionLayer | None = None,
        norm: NormName = "layer",
        bias: bool = True,
        residual: ResidualName = "pre_norm",
        alpha: float = 1.0,
        layer_scale: float | None = None,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        macaron: bool = False,
        streams: int = 4,
        shift: float = 0.0,
    ) -> None:
        super().__init__()
        check_below_one(shift=shift)
        if macaron and residual == "deepnorm":
            raise ValueError(
                "macaron must be false with residual=deepnorm: its constants are for one feed-forward network"
            )

        def around() -> Residual:
            return residual_connection(
                attention.dim,
                residual,
                streams=streams,
                norm=norm,
                bias=bias,
                alpha=alpha,
                layer_scale=layer_scale,
                drop=drop_path,
            )

        self.n_shifted = round(shift * attention.dim)
        self.attention = attention
        self.around_attention = around()
        self.cross = cross
        self.around_cross = None if cross is None else around()
        self.feed_forward = feed_forward
        self.around_feed_forward = around()
        self.before = deepcopy(feed_forward) if macaron else None
        self.around_before = around() if macaron else None
        if self.before is not None:
            self.before.first.reset_parameters()
            self.before.second.reset_parameters()
            self.before.share = self.feed_forward.share = 0.5
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        *,
        mask: Mask | None = None,
        memory_mask: Mask | None = None,
        cache: BlockCache | None = None,
        handed: Handed | None = None,
    ) -> Tensor:
        """x (B, T, E), for a decoder's block with a memory (B, S, E') -> (B, T, E).

        Args:
            x: the tokens.
            memory: what cross-attention attends to.
            mask: between the tokens, besides the one that the attention has itself.
            memory_mask: from the tokens to the memory.
            cache: the tokens before these.
            handed: what the blocks before have handed on, and the place for what this one does.
        """
        tokens = None if cache is None else cache.tokens
        stacked = {"handed": handed} if isinstance(self.attention, StackedAttention) else {}

        def attend(tokens_: Tensor) -> Tensor:
            return self.dropout(self.attention(tokens_, mask=mask, cache=tokens, **stacked))

        shift = self._shift(x, mask, cache) if self.n_shifted else None

        def reading(name: str, layer: Layer) -> Layer:
            return layer if shift is None else shift.into(name, layer)

        if self.before is not None and self.around_before is not None:
            x = self.around_before(x, reading("before", self.before))
        x = self.around_attention(x, reading("attention", attend))
        if self.cross is not None and self.around_cross is not None:
            assert memory is not None, "a decoder's block needs a memory"
            cross, known = self.cross, self._memory_of(memory, cache)

            def look(tokens_: Tensor) -> Tensor:
                return self.dropout(cross(tokens_, known, mask=memory_mask))

            x = self.around_cross(x, look)
        return self.around_feed_forward(x, reading("feed_forward", self.feed_forward))

    def connections(self) -> list[Residual]:
        """Around its layers, in their order."""
        all_ = (self.around_before, self.around_attention, self.around_cross, self.around_feed_forward)
        return [each for each in all_ if each is not None]

    def residual_outputs(self) -> list[nn.Linear]:
        """The last layer of each residual branch."""
        return [
            *(attention.output for attention in self._attentions()),
            *(each.second for each in self.feed_forwards()),
        ]

    def reset_parameters(self, gain: float) -> None:
        """Glorot-uniform, with this gain for all but queries and keys; biases zero."""
        for part in (*self._attentions(), *self.feed_forwards()):
            part.reset_parameters(gain)

    def _attentions(self) -> list[AttentionLayer]:
        return [self.attention] if self.cross is None else [self.attention, self.cross]

    def feed_forwards(self) -> list[FeedForward]:
        """The feed-forward network, or both of them."""
        return [self.feed_forward] if self.before is None else [self.before, self.feed_forward]

    def _shift(self, x: Tensor, mask: Mask | None, cache: BlockCache | None) -> TokenShift:
        """Between tokens that may attend to each other."""
        first, last = (0, {}) if cache is None else (cache.tokens.length, cache.last)
        own = getattr(self.attention, "mask", None)  # linear attention has none
        return TokenShift(self.n_shifted, first, x, merged(own, mask), last)

    def _memory_of(self, memory: Tensor, cache: BlockCache | None) -> Tensor | KeyValues:
        """The memory, projected only once while decoding."""
        if cache is None or self.cross is None:
            return memory
        if cache.memory is None:
            cache.memory = self.cross.keys_values(memory)
        return cache.memory
