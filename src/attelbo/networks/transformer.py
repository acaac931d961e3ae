"""Transformers from configured parts: those of attention are chosen once, for all layers.

Source: Vaswani et al. 2017, section 3; a causal stack without memory is the language model of Radford et al. 2019.

    tokens -- TokenEmbedding --> x -- TransformerBlock (L times) --> x -- norm (unless blocks end with one) --> features

Shapes: B batch, T tokens, S tokens of the memory, E features of a token, V vocabulary, L layers.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from attelbo.attention import (
    AttentionLayer,
    BlockCache,
    Causal,
    FeedForward,
    Handed,
    HeadFeatures,
    Mask,
    Position,
    TransformerBlock,
    norm_layer,
)
from attelbo.attention.blocks import FeedForwardActivation
from attelbo.attention.layer import check_said
from attelbo.attention.masks import merged
from attelbo.attention.norms import NormName
from attelbo.attention.residuals import ResidualName, deepnorm_constants, ends_with_norm
from attelbo.building import Spec, arguments_of, locate, part
from attelbo.checks import check_at_least, check_below_one
from attelbo.errors import ConfigError

STD = 0.02
"""The standard deviation of initial weights."""


@dataclass(frozen=True)
class AttentionParts:
    """The choices of attention as configuration nodes; every layer builds its own from them."""

    attention: Spec
    score: Spec | None
    """None where the attention has none, as linear attention; likewise the normalizer."""
    normalizer: Spec | None
    position: Spec
    mask: Spec | None = None
    """In addition to the mask of the model itself; None: nothing more."""
    where: str | None = None
    """The part of the model that they are chosen for, such as its encoder; None: the model itself."""

    def position_of(
        self, dim: int, max_length: int, *, causal: bool = False, size: tuple[int, int] | None = None
    ) -> Position:
        """The position, which all layers share.

        Args:
            dim: E.
            max_length: the most tokens.
            causal: whether no token sees those after it.
            size: (H, W) of the grid of tokens, where they are an image.

        Raises:
            ConfigError: an argument is out of range.
        """
        sizes = self._sizes(dim, self._features(dim).placed)
        return part(self._key("position"), self.position, **sizes, max_length=max_length, causal=causal, size=size)

    def layer(
        self,
        dim: int,
        position: Position | None = None,
        *,
        mask: Mask | None = None,
        memory_dim: int | None = None,
        max_length: int | None = None,
        depth: int = 1,
    ) -> AttentionLayer:
        """The attention of one layer; with neither position nor ``mask`` it is for a memory.

        Args:
            dim: E.
            position: :meth:`position_of`.
            mask: who may attend to whom, besides the configured mask; that is one of self-attention.
            memory_dim: of the tokens of a memory, where that is not E.
            max_length: the most keys.
            depth: of the layer in a stack, from 1 on.

        Raises:
            ConfigError: an argument is out of range, or the parts do not fit together.
        """
        head_dim = self._features(dim).scored
        offered = {**self._sizes(dim, head_dim), "max_length": max_length}
        own = self.mask if position is not None else None
        chosen = {"score": self.score, "normalizer": self.normalizer, "mask": own}
        parts = {name: part(self._key(name), spec, **offered) for name, spec in chosen.items() if spec is not None}
        self._check_taken(parts, position)
        try:
            check_said(parts.get("score"), parts.get("mask"), self.attention["heads"], head_dim, max_length)
        except ValueError as error:
            raise ConfigError(f"model.{self._key(str(error))}") from error
        parts["mask"] = merged(mask, parts.get("mask"))
        if "feature_map" in self.attention:
            parts["feature_map"] = part(self._key("attention.feature_map"), self.attention["feature_map"], dim=head_dim)
        return part(
            self._key("attention"),
            {key: value for key, value in self.attention.items() if key != "feature_map"},
            dim=dim,
            memory_dim=memory_dim,
            position=position,
            causal=isinstance(mask, Causal),
            depth=depth,
            follows=depth > 1 and position is not None,
            **parts,
        )

    def _check_taken(self, parts: Collection[str], position: Position | None) -> None:
        """Raise ConfigError if the attention would ignore a part, or the encoding of queries and keys by the position:
        linear attention has no scores to be normalized or masked."""
        target = self.attention["_target_"]
        taken = arguments_of(locate(target))
        if ignored := [name for name in parts if name not in taken]:
            choice = self._choice(ignored[0])
            raise ConfigError(f"{choice}: {target} takes none; ~{choice} does without")
        if position is not None and "position" not in taken and not position.is_at_input:
            raise ConfigError(
                f"{self._choice('position')}: {target} ignores the encoding of queries, keys and scores by "
                f"{type(position).__name__}; learned and sinusoidal positions are added to the tokens"
            )

    def _key(self, name: str) -> str:
        return name if self.where is None else f"{self.where}.{name}"

    def _choice(self, name: str) -> str:
        """The choice on the command line."""
        return f"model/{name}" if self.where is None else f"model/{name}@model.{self._key(name)}"

    def _sizes(self, dim: int, head_dim: int) -> dict[str, int]:
        return {"dim": dim, "heads": self.attention["heads"], "head_dim": head_dim}

    def _features(self, dim: int) -> HeadFeatures:
        """Of a head's query and key, as the layer has them."""
        options = {key: value for key, value in self.attention.items() if key != "_target_"}
        kind = locate(self.attention["_target_"])
        try:
            layer = kind if isinstance(kind, type) and issubclass(kind, AttentionLayer) else AttentionLayer
            return layer.head_features(dim, **options)
        except ValueError as error:
            raise ConfigError(f"model.{self._key('attention')}: {error} [{self.attention['_target_']}]") from error


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
    ) -> None:
        super().__init__()
        check_at_least(1, layers=layers)
        check_below_one(drop_path=drop_path)
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
            )
            for depth in range(1, layers + 1)
        )
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
        handed = Handed()
        for i, block in enumerate(self.blocks):
            cache, handed = None if caches is None else caches[i], Handed(handed.parts)
            x = block(x, memory, mask=mask, memory_mask=memory_mask, cache=cache, handed=handed)
        return self.norm(x)

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
