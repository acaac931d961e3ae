"""Transformers from configured parts: those of attention are chosen once, for all layers.

Source: Vaswani et al. 2017, section 3; a causal stack without memory is the language model of Radford et al. 2019.

    tokens -- TokenEmbedding --> x -- TransformerBlock (L times) --> x -- norm (unless blocks end with one) --> features

Shapes: B batch, T tokens, S tokens of the memory, E features of a token, V vocabulary, L layers.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attelbo.attention import (
    BlockCache,
    Causal,
    FeedForward,
    Handed,
    Mask,
    Position,
    TransformerBlock,
    norm_layer,
)
from attelbo.attention.blocks import FeedForwardActivation
from attelbo.attention.hyper_connections import ResidualName, is_hyper, take_turns
from attelbo.attention.norms import NormName
from attelbo.attention.precision import full_precision
from attelbo.attention.residuals import deepnorm_constants, ends_with_norm
from attelbo.checks import check_below_one, check_repetitions
from attelbo.errors import ConfigError
from attelbo.networks.attention_parts import AttentionParts

STD = 0.02
"""The standard deviation of initial weights."""


class TokenEmbedding(nn.Module):
    """Tokens (B, T) -> x (B, T, E): a vector for each token, with its position.

    Args:
        n_tokens: V.
        dim: E.
        position: its encoding at the input is added.
        dropout: on the sum, in training.
        scale: multiplies the vectors, sqrt(E) in the paper.
    """

    def __init__(self, n_tokens: int, dim: int, position: Position, dropout: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        self.vectors = nn.Embedding(n_tokens, dim)
        self.position = position
        self.dropout = nn.Dropout(dropout)
        self.scale = scale

    def forward(self, tokens: Tensor, first: int = 0) -> Tensor:
        """x of tokens of which the first is at position ``first``."""
        vectors = self.vectors(tokens)
        return self.dropout(self.position.at_input(vectors if self.scale == 1 else self.scale * vectors, first))


class Transformer(nn.Module):
    """A stack of blocks over tokens (B, T, E).

    Args:
        dim: E.
        parts: the parts of attention.
        position: shared by all layers.
        causal: whether no token sees those after it.
        cross: whether each block attends to a memory too.
        decoder_layers: those of the decoder that attends to the output of this stack; 0: there is none.
        layers: L.
        hidden: features inside the feed-forward networks; 4 E if None.
        activation: of the feed-forward networks.
        norm: of the tokens, see ``attention.norms``.
        residual: how the output of a layer is added to its input, see ``attention.residuals``.
        layer_scale: the initial learned factor of each feature of a branch; None: no factor.
        dropout: on the output of each layer, in training.
        bias: whether norms and feed-forward networks have one.
        hidden_dropout: inside the feed-forward networks, after the activation, in training.
        drop_path: the probability with which a layer of the last block adds nothing to a row, in training; it grows
            with the depth of a block, in even steps from 0 (Huang et al. 2016, eq. 4).
        macaron: whether half of a feed-forward network stands on either side of attention (Lu et al. 2019).
        streams: n of hyper-connections, see ``attention.hyper_connections``.
        shift: the share of features that layers read of the token before, see ``attention.shifted``.

    Raises:
        ValueError: a size below 1, no such activation, norm or residual, a number out of range, or two learned factors.
        ConfigError: the parts of the attention do not fit together.
    """

    def __init__(
        self,
        dim: int,
        parts: AttentionParts,
        position: Position,
        *,
        causal: bool = False,
        cross: bool = False,
        decoder_layers: int = 0,
        layers: int = 4,
        hidden: int | None = None,
        activation: FeedForwardActivation = "gelu",
        norm: NormName = "layer",
        residual: ResidualName = "pre_norm",
        layer_scale: float | None = None,
        dropout: float = 0.0,
        bias: bool = True,
        hidden_dropout: float = 0.0,
        drop_path: float = 0.0,
        macaron: bool = False,
        streams: int = 4,
        shift: float = 0.0,
    ) -> None:
        super().__init__()
        check_repetitions(layers=layers)
        check_below_one(dropout=dropout, hidden_dropout=hidden_dropout, drop_path=drop_path)
        alpha, self.beta = 1.0, None
        if residual == "deepnorm":
            alpha, self.beta = deepnorm_constants(layers, cross=cross, decoder_layers=decoder_layers)
        mask = Causal() if causal else None
        self.position = position
        self.blocks = nn.ModuleList(
            TransformerBlock(
                parts.layer(dim, position, mask=mask, max_length=position.max_length, depth=depth),
                FeedForward(dim, 4 * dim if hidden is None else hidden, activation, dropout, bias, hidden_dropout),
                cross=parts.layer(dim, depth=depth) if cross else None,
                norm=norm,
                bias=bias,
                residual=residual,
                alpha=alpha,
                layer_scale=layer_scale,
                dropout=dropout,
                drop_path=drop_path * depth / layers,
                macaron=macaron,
                streams=streams,
                shift=shift,
            )
            for depth in range(1, layers + 1)
        )
        self.streams = streams if is_hyper(residual) else None
        take_turns(each for block in self._blocks() for each in block.connections())
        self.norm = norm_layer(norm, dim, bias) if ends_with_norm(residual) else nn.Identity()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The initial weights of DeepNorm (Wang et al. 2022, figure 2; uniform, where theirs are normal); for other
        residuals unchanged."""
        if self.beta is not None:
            for block in self._blocks():
                block.reset_parameters(self.beta)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        *,
        mask: Mask | None = None,
        memory_mask: Mask | None = None,
        caches: Sequence[BlockCache] | None = None,
    ) -> Tensor:
        """x (B, T, E), with a memory (B, S, E) for a decoder -> features (B, T, E).

        Args:
            x: the tokens.
            memory: what cross-attention attends to.
            mask: between the tokens, besides the causal one.
            memory_mask: from the tokens to the memory.
            caches: of each block, the tokens before these.
        """
        if torch.is_autocast_enabled(x.device.type):
            x = full_precision(x)  # to which all branches are added: of patches in bfloat16 too
        if self.streams is not None:
            x = x.expand(self.streams, *x.shape)
        handed = Handed()
        for i, block in enumerate(self.blocks):
            cache, handed = None if caches is None else caches[i], Handed(handed.parts)
            x = block(x, memory, mask=mask, memory_mask=memory_mask, cache=cache, handed=handed)
        return self.norm(x if self.streams is None else x.mean(0))

    def caches(self, capacity: int) -> list[BlockCache]:
        """Empty caches for decoding up to ``capacity`` tokens."""
        return [BlockCache(block.attention.cache(capacity)) for block in self._blocks()]

    def residual_outputs(self) -> list[nn.Linear]:
        """The last layer of each residual branch: two in a block, three in a decoder's."""
        return [layer for block in self._blocks() for layer in block.residual_outputs()]

    def _blocks(self) -> list[TransformerBlock]:
        return [block for block in self.blocks if isinstance(block, TransformerBlock)]


def initialize_by_depth(model: nn.Module, network: Transformer) -> None:
    """Initial weights of a model around a network (Radford et al. 2019, section 2.3): normal with standard deviation
    0.02, or 0.02 / sqrt(n) for the last layers of the network's n residual branches; biases zero. DeepNorm has its own.

    Raises:
        ConfigError: the network is not a ``Transformer``.
    """
    if not isinstance(network, Transformer):
        raise ConfigError(
            f"model/network: this model is made of transformer blocks, not of {type(network).__name__}; "
            "model/network=transformer has them"
        )
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=STD)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    added = network.residual_outputs()
    for layer in added:
        nn.init.normal_(layer.weight, std=STD / len(added) ** 0.5)
    network.reset_parameters()
