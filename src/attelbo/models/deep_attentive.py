"""A top-down hierarchy whose layers attend to all layers above them (Apostolopoulou, Char, Rosenfeld & Dubrawski 2022,
"Deep Attentive Variational Inference", ICLR, section 3).

    c_l = h_l + attend(h_l to projections of h_1 ... h_{l-1})
    p(z_l | layers above) reads c_l
    q(z_l | layers above, x) reads c_l and a_l + attend(c_l to projections of the input and the outputs of blocks that
                                                        have read x, from the image to the level of the layer)

h_l is the state that layer l of a :class:`~attelbo.models.TopDownVAE` begins with, a_l the activations of its level.
Attention is across depth, at each pixel (``networks.depth_attention``), and starts at zero: the model begins as the one
without it. Behind the blocks of chosen sizes there can be attention between pixels too, the paper's non-local blocks.

Ours differs: the hierarchy is that of Child 2021, where the paper's is NVAE; c_1 = h_1 and c_2 = h_2, since all that
there is above these layers is h_1, a learned constant.

Shapes: B batch, N rows (B for each sample), C channels, H x W pixels of a level, L layers, as many blocks that read x,
E features of a projection.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from attelbo.attention import FeatureMapAttention, record_attention
from attelbo.building import Spec
from attelbo.checks import check_at_least
from attelbo.data.batch import DataSpec
from attelbo.latent import Likelihood, Objective
from attelbo.models.hierarchy import parameters_of
from attelbo.models.parts import model_arguments
from attelbo.models.top_down import TopDownVAE, checked_parts
from attelbo.networks import AttentionParts
from attelbo.networks.depth_attention import DepthAttention, memory_projections
from attelbo.networks.layers import Size, attention_layer, channels_last, check_attention_at, halvings
from attelbo.networks.top_down import Behind, resize

FIRST = 2
"""The first layer, counted from 0, that attends to those above it."""


class DepthWeights(NamedTuple):
    """How much layers attend to what: means over rows, pixels and heads, zero where there is no attention."""

    above: Tensor
    """(L, L): the context of a layer to the layers above it."""
    evidence: Tensor
    """(L, 1 + L): q of a layer to the input and to the blocks that read x."""


class DeepAttentiveVAE(TopDownVAE):
    """See :func:`build_deep_attentive` for how a configuration becomes one."""

    def __init__(
        self,
        likelihood: Likelihood,
        objective: Objective,
        channels: int,
        latent_channels: int,
        blocks: Sequence[int],
        optimizer: Spec,
        scheduler: Spec,
        residual_posterior: bool,
        dim: int,
        parts: AttentionParts,
        behind: Behind,
    ) -> None:
        super().__init__(
            likelihood, objective, channels, latent_channels, blocks, optimizer, scheduler, residual_posterior, behind
        )

        def attention_to(n_maps: int) -> DepthAttention:
            return DepthAttention(channels, dim, parts.layer(dim, max_length=n_maps))

        depth = sum(blocks)
        self.memory = memory_projections(depth - 1 if depth > FIRST else 0, channels, dim)
        self.above = nn.ModuleList(attention_to(layer) for layer in range(FIRST, depth))
        self.evidence_memory = memory_projections(1 + depth, channels, dim)
        self.n_evidence = [1 + sum(blocks[: level + 1]) for level in self.level_of]  # maps that q of a layer sees
        self.evidence_at = nn.ModuleList(attention_to(n) for n in self.n_evidence)
        channels_last(self)

    def bottom_up(self, x: Tensor) -> list[Tensor]:
        """The activations of each level, (B, C, H, W), from the image to the smallest map; then the memory, projections
        of the input and of the output of each block, (B, E, H, W)."""
        h, project = self.read(x), iter(self.evidence_memory)
        levels, memory = [], [next(project)(h)]
        for size, level in zip(self.sizes, self.upward, strict=True):
            h = resize(h, size)
            for block in cast(nn.Sequential, level):
                h = block(h)
                memory.append(next(project)(h))
            levels.append(h)
        return [*levels, *memory]

    def contexts(self) -> Callable[[int, Tensor], Tensor]:
        memory: list[Tensor] = []

        def context_of(layer: int, h: Tensor) -> Tensor:
            context = h if layer < FIRST else h + self.above[layer - FIRST](h, memory)
            if layer < len(self.memory):
                memory.append(self.memory[layer](h))
            return context

        return context_of

    def activation_for(self, layer: int, context: Tensor, activations: list[Tensor]) -> Tensor:
        levels, memory = activations[: len(self.sizes)], activations[len(self.sizes) :]
        own = super().activation_for(layer, context, levels)
        return own + self.evidence_at[layer](context, memory[: self.n_evidence[layer]])

    def inference_parameters(self) -> list[nn.Parameter]:
        return [*super().inference_parameters(), *parameters_of(self.evidence_memory, self.evidence_at)]

    @torch.no_grad()
    def depth_weights(self, x: Tensor) -> DepthWeights:
        """How much layers attend to what, where images x (B, C, H, W) are reconstructed from the means of q."""
        depth = len(self.downward)
        found = DepthWeights(x.new_zeros(depth, depth), x.new_zeros(depth, 1 + depth))
        rows = {f"above.{i}": row for i, row in enumerate(found.above[FIRST:])}
        rows |= {f"evidence_at.{i}": row for i, row in enumerate(found.evidence)}
        with record_attention(self, tuple(rows)) as maps:
            self.reconstruct(x)
        for name, row in rows.items():
            weights = maps[name].mean((0, 1, 2))
            row[: len(weights)] = weights
        return found


def build_deep_attentive(
    data: DataSpec,
    likelihood: Spec,
    objective: Spec,
    channels: int,
    latent_channels: int,
    blocks: Sequence[int],
    optimizer: Spec,
    scheduler: Spec,
    attention: Spec,
    score: Spec | None = None,
    normalizer: Spec | None = None,
    dim: int = 16,
    spatial_attention: FeatureMapAttention = "non_local",
    spatial_heads: int = 4,
    attention_at: Sequence[int] = (),
    residual_posterior: bool = True,
) -> DeepAttentiveVAE:
    """Compose a top-down hierarchy with attention across its layers from its configuration.

    Args:
        data: what is known of the data: images of any size.
        likelihood: of x.
        objective: made of the evidence terms alone.
        channels, latent_channels, blocks: as in :func:`~attelbo.models.build_top_down`.
        optimizer: its configuration.
        scheduler: the learning rate's.
        attention: across layers.
        score: how well a projection matches a query.
        normalizer: from scores to weights.
        dim: E.
        spatial_attention: between pixels, one of ``FEATURE_MAP_ATTENTION``.
        spatial_heads: of it, where it has heads; must divide ``channels``.
        attention_at: the heights of the maps that have it, behind each of their blocks.
        residual_posterior: whether q's mean and log std are added to those of p.

    Raises:
        ConfigError: an argument is out of range, or parts do not fit together.
    """
    p, o = checked_parts(data, likelihood, objective, channels, latent_channels, blocks)
    parts = AttentionParts(attention, position={}, score=score, normalizer=normalizer)

    def between_pixels(size: Size) -> nn.Module | None:
        if size[0] not in attention_at:
            return None
        try:
            return attention_layer(spatial_attention, channels, spatial_heads)
        except ValueError as error:
            raise ValueError(f"spatial_{error}") from error  # which begins with the argument's name

    with model_arguments():
        check_at_least(1, dim=dim)
        sizes = halvings((data.shape[1], data.shape[2]), len(blocks) - 1)
        check_attention_at(attention_at, [size for size, n in zip(sizes, blocks, strict=True) if n])
        return DeepAttentiveVAE(
            p,
            o,
            channels,
            latent_channels,
            blocks,
            optimizer,
            scheduler,
            residual_posterior,
            dim,
            parts,
            between_pixels,
        )
