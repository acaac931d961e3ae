"""The parts of attention from their configuration, chosen once for all layers of a network or model.

Shapes: E features of a token, (H, W) grid of tokens.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NotRequired, TypedDict

from attelbo.attention import AttentionLayer, Causal, Global, HeadFeatures, Mask, Position
from attelbo.attention.layer import check_score_and_mask
from attelbo.attention.masks import merged
from attelbo.building import Spec, arguments_of, locate, locate_part, part
from attelbo.errors import ConfigError


class AttentionSpecs(TypedDict):
    """The choices of attention as configuration nodes."""

    attention: Spec
    """Of each layer."""
    position: Spec
    """The encoding of places."""
    score: NotRequired[Spec | None]
    """How well a key matches a query; None where the attention has none, as linear attention."""
    normalizer: NotRequired[Spec | None]
    """From scores to weights; likewise."""
    mask: NotRequired[Spec | None]
    """Which tokens may attend to which, in addition to the mask of the model itself; None: nothing more. It leaves out
    tokens in front of them, such as those of a pooling or of z."""


@dataclass(frozen=True)
class AttentionParts:
    """The choices of attention, see :class:`AttentionSpecs`; every layer builds its own from them."""

    attention: Spec
    position: Spec
    """Empty where all attention is to a memory, or is given its position otherwise."""
    score: Spec | None = None
    normalizer: Spec | None = None
    mask: Spec | None = None
    n_global: int = 0
    """Tokens in front of the others that the configured mask leaves out: they see everyone and everyone sees them, as
    far as the model's own mask allows."""
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
            check_score_and_mask(parts.get("score"), parts.get("mask"), self.attention["heads"], head_dim, max_length)
        except ValueError as error:
            raise ConfigError(f"model.{self._key(str(error))}") from error
        if own is not None and self.n_global:
            parts["mask"] = Global(parts["mask"], self.n_global)
        parts["mask"] = merged(mask, parts.get("mask"))
        if (spec := self.attention.get("feature_map")) is not None:
            own = self._key("attention.feature_map")
            if not isinstance(spec, Mapping):
                raise ConfigError(
                    f"model.{own}: expected a mapping with _target_, got {spec!r}; model/attention=performer has one"
                )
            parts["feature_map"] = part(own, spec, dim=head_dim)
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
            remedy = f"~{choice} does without"
            if rest := next((name for name, each in taken.items() if each.kind is each.VAR_KEYWORD), None):
                remedy = (
                    f"where it passes it on, **{rest}: Unpack[attelbo.attention.AttentionOptions] says so; {remedy}"
                )
            raise ConfigError(f"{choice}: {target} takes none; {remedy}")
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
        kind = locate_part(self._key("attention"), self.attention)
        if "heads" not in options:
            raise ConfigError(f"model.{self._key('attention')}.heads is missing: its file says how many, heads: 4")
        try:
            layer = kind if isinstance(kind, type) and issubclass(kind, AttentionLayer) else AttentionLayer
            return layer.head_features(dim, **options)
        except ValueError as error:
            raise ConfigError(f"model.{self._key('attention')}: {error} [{self.attention['_target_']}]") from error
