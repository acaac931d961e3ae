"""A deep top-down hierarchy of any number of layers (Child 2021, "Very Deep VAEs", arXiv:2011.10650).

    x --> residual blocks, level by level to the smallest map --> activations a of each level
    h_1 (learned) --> [ q(z|h, a), p(z|h) -> z -> h ] for each layer, from the smallest map to the image's size --> eta

with h_l the state that layer l begins with.

Ours differs: maps are pooled by means and upsampled by nearest neighbour to the size of each level, so that any image
size is possible; one convolution at the end gives the likelihood's parameters. Steps with too large a gradient are not
skipped but clipped (``trainer.clip_norm``). If asked for, q is residual (Vahdat & Kautz 2020, "NVAE", arXiv:2007.03898,
section 3.2): its mean and log std are those of p plus what is read from x, so that it moves where p moves.

Shapes: B batch, N rows (B for each sample), C channels, H x W pixels of a level, Z latents at each pixel.
"""

import math
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from attelbo.building import Spec, part
from attelbo.checks import check_at_least, check_repetitions
from attelbo.data.batch import DataSpec
from attelbo.latent import DiagonalNormal, Likelihood, Objective
from attelbo.latent.arithmetic import bound_log_std, full_precision
from attelbo.models.hierarchy import Choice, Hierarchy, parameters_of, split_normal
from attelbo.models.parts import check_images, check_objective_of_terms, likelihood_of, model_arguments
from attelbo.networks.layers import channels_last, halvings, image_shape, initialize
from attelbo.networks.top_down import Behind, TopDownBlock, residual_block, resize


class TopDownVAE(Hierarchy):
    """See :func:`build_top_down` for how a configuration becomes one."""

    def __init__(
        self,
        likelihood: Likelihood,
        objective: Objective,
        channels: int,
        latent_channels: int,
        blocks: Sequence[int],
        optimizer: Spec,
        scheduler: Spec,
        residual_posterior: bool = False,
        behind: Behind = lambda size: None,
    ) -> None:
        c_in, height, width = image_shape("data", likelihood.data_shape)
        sizes = halvings((height, width), len(blocks) - 1)  # of each level, from the image on
        depth = sum(blocks)
        layers = [size for size, n in zip(sizes, blocks, strict=True) for _ in range(n)][::-1]
        shapes = [(latent_channels, *size) for size in layers]
        super().__init__(likelihood, objective, sum(map(math.prod, shapes)), optimizer, scheduler)
        self.layer_shapes = shapes
        self.sizes = sizes
        self.blocks = tuple(blocks)
        self.level_of = [level for level in reversed(range(len(blocks))) for _ in range(blocks[level])]  # of each layer
        self.residual_posterior = residual_posterior
        self.read = initialize(nn.Conv2d(c_in, channels, 3, padding=1))
        self.upward = nn.ModuleList(
            nn.Sequential(*(residual_block(channels, size, depth, behind) for _ in range(n)))
            for size, n in zip(sizes, blocks, strict=True)
        )
        self.start = nn.Parameter(torch.zeros(channels, *sizes[-1]))
        self.downward = nn.ModuleList(TopDownBlock(channels, latent_channels, size, depth, behind) for size in layers)
        # Upsampled pixels are equal; these break the symmetry.
        self.offsets = nn.ParameterList(torch.zeros(channels, *size) for size in reversed(sizes[:-1]))
        self.output = initialize(nn.Conv2d(channels, likelihood.parameter_shape[0], 3, padding=1))
        channels_last(self)

    def bottom_up(self, x: Tensor) -> list[Tensor]:
        """The activations of each level, (B, C, H, W), from the image to the smallest map."""
        h = self.read(x)
        activations: list[Tensor] = []
        for size, level in zip(self.sizes, self.upward, strict=True):
            h = level(resize(h, size))
            activations.append(h)
        return activations

    def contexts(self) -> Callable[[int, Tensor], Tensor]:
        """What p and q of a layer read in one pass from the top down, given its number and the state h above it, both
        (N, C, H, W): h itself."""
        return lambda layer, h: h

    def activation_for(self, layer: int, context: Tensor, activations: list[Tensor]) -> Tensor:
        """What q of a layer reads of x, (N, C, H, W): the activations of its level.

        Args:
            layer: its number, from the top.
            context: of the layer, (N, C, H, W).
            activations: of ``bottom_up``, for N rows.
        """
        return activations[self.level_of[layer]]

    def descend(self, n: int, choose: Choice, activations: list[Tensor] | None) -> Tensor:
        h = self.start.expand(n, *self.start.shape)
        context_of = self.contexts()
        layers = enumerate(self.downward)
        for place, (size, blocks) in enumerate(zip(self.sizes[::-1], self.blocks[::-1], strict=True)):
            if place:
                h = resize(h, size) + self.offsets[place - 1]
            for _ in range(blocks):
                layer, block = cast(tuple[int, TopDownBlock], next(layers))
                context = context_of(layer, h)
                parameters, features = block.of_prior(context)
                p, q = split_normal(full_precision(parameters)), None
                if activations is not None:
                    read = block.of_posterior(context, self.activation_for(layer, context, activations))
                    q = split_normal(full_precision(read))
                    q = relative_to(p, q) if self.residual_posterior else q
                h = block.after(h, features, choose(q, p))
        return self.output(h).contiguous()

    def inference_parameters(self) -> list[nn.Parameter]:
        posteriors = (cast(TopDownBlock, block).posterior for block in self.downward)
        return parameters_of(self.read, self.upward, *posteriors)


def relative_to(p: DiagonalNormal, q: DiagonalNormal) -> DiagonalNormal:
    """The normal with mean and log std those of p plus those of q: a residual posterior."""
    return DiagonalNormal(p.mean + q.mean, bound_log_std(p.log_std + q.log_std))


def build_top_down(
    data: DataSpec,
    likelihood: Spec,
    objective: Spec,
    channels: int,
    latent_channels: int,
    blocks: Sequence[int],
    optimizer: Spec,
    scheduler: Spec,
    residual_posterior: bool = False,
) -> TopDownVAE:
    """Compose a top-down hierarchy from its configuration.

    Args:
        data: what is known of the data: images of any size.
        likelihood: of x.
        objective: made of the evidence terms alone.
        channels: C, of all feature maps; blocks work on a quarter of them.
        latent_channels: Z, latents at each pixel of a layer.
        blocks: layers of latents at each level, from the image's size on; each level halves height and width, rounded
            up. The encoder has as many residual blocks there.
        optimizer: its configuration.
        scheduler: the learning rate's.
        residual_posterior: whether q's mean and log std are added to those of p.

    Raises:
        ConfigError: an argument is out of range, or two parts do not fit together.
    """
    p, o = checked_parts(data, likelihood, objective, channels, latent_channels, blocks)
    return TopDownVAE(p, o, channels, latent_channels, blocks, optimizer, scheduler, residual_posterior)


def checked_parts(
    data: DataSpec, likelihood: Spec, objective: Spec, channels: int, latent_channels: int, blocks: Sequence[int]
) -> tuple[Likelihood, Objective]:
    """Likelihood and objective of a top-down hierarchy with these sizes.

    Raises:
        ConfigError: an argument is out of range, or two parts do not fit together.
    """
    check_images(data, "a top-down hierarchy")
    with model_arguments():
        check_at_least(1, channels=channels, latent_channels=latent_channels)
        if not blocks or not any(blocks) or min(blocks) < 0:
            raise ValueError(f"blocks must name the layers of each level, at least one in all, got {list(blocks)}")
        check_repetitions(blocks=sum(blocks))
    p = likelihood_of(likelihood, data)
    o = part("objective", objective)
    check_objective_of_terms(o, "a hierarchy")
    return p, o
