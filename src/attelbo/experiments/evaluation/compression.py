"""Lossless compression by bits back: images are actually coded and decoded, and the bits are counted.

Source: Townsend, Bird & Barber 2019, "Practical Lossless Compression with Latent Variables using Bits Back Coding"
(arXiv:1901.04866), section 2 and appendix B; the entropy coder is constriction's, asymmetric numeral systems.

    push: pop z by q(z|x), push x by p(x|z), push z by p(z);    pop: the same backwards

A message is a stack of bits: popping z takes -log2 q(z|x) bits off it, which the decoder pushes back, so that an image
makes it grow by -log2 p(x|z) - log2 p(z) + log2 q(z|x), on average the negative ELBO. Only the first batch needs bits
from elsewhere: they are counted separately, as in the paper.

z lives on a grid of 2^8 bins in each dimension, all equally likely under p(z), each with the value at its middle.
Probabilities are rounded to multiples of 2^-14 for q, 2^-12 for binary pixels and 2^-14 for grey levels, where each
level keeps at least one such unit (what that costs for pixels that are nearly certain is most of the overhead). Unlike
the paper's code, which codes image by image, a batch is coded at once: the networks see the same batches in both
directions, and give the same numbers to the last bit, on one machine.

Shapes: B batch, D latent dimensions, N pixels, L levels of a pixel.
"""

import math
from typing import Any

import constriction
import numpy as np
import torch
from torch import Tensor

from attelbo.data import ImageDataModule, ResidentDataModule
from attelbo.errors import ConfigError
from attelbo.experiments.evaluation.conditions import Conditions
from attelbo.experiments.terminal import tracked
from attelbo.latent import StandardNormal
from attelbo.latent.distributions import DiagonalNormal
from attelbo.metrics import Measure
from attelbo.models import Model, VariationalAutoencoder
from attelbo.seeding import derive_seed

PRIOR_BITS = 8
POSTERIOR_BITS = 14
BINARY_BITS = 12
LEVEL_BITS = 14

COMPRESSION = (
    Measure("coded_bits_per_dim", "coded size", "bits/dim, by bits-back coding, decoded again", 4, better="less"),
    Measure("coding_overhead", "coding overhead", "% above the ELBO of the same images", 2, better="less"),
    Measure("initial_bits", "initial bits", "taken from elsewhere by the first batch, not counted", 0),
)

Stack = Any
"""constriction's coder."""

_STREAM: Any = constriction.stream  # pyright: ignore[reportAttributeAccessIssue] - it is written in Rust
_TABLES = _STREAM.model.Categorical(perfect=False)
_GRID = _STREAM.model.Uniform(2**PRIOR_BITS)


def check_compressible(model: Model, data: ResidentDataModule) -> None:
    """Check that bits-back coding is possible with a model and its data.

    Raises:
        ConfigError: it is not.
    """
    if not (
        isinstance(model, VariationalAutoencoder)
        and isinstance(data, ImageDataModule)
        and isinstance(model.prior, StandardNormal)
        and model.posterior.distribution is DiagonalNormal
        and model.has_bits
    ):
        raise ConfigError(
            "compress=true: bits-back coding here is for images and a VAE with model/posterior=diagonal_normal, "
            "model/prior=standard_normal and a discrete likelihood of what the images are"
        )
    if model.sums_over_labels:
        raise ConfigError("compress=true: M2 sums over labels, and bits-back coding here would be given one for free")


@torch.inference_mode()
def evaluate_compression(
    model: VariationalAutoencoder, data: ResidentDataModule, conditions: Conditions
) -> dict[str, float]:
    """Code ``n_images`` rows of a split (None: all) as one message, decode it, and count its bits.

    Raises:
        RuntimeError: what was decoded is not what was coded: the networks gave different numbers the second time.
    """
    batches = [data.materialize(rows, conditions.split) for rows in conditions.rows(data)]
    coder = BitsBack(model)
    conditions.seed_noise("compression")
    bits = -sum(float(model.evidence(batch.x, batch.y).elbo.sum()) for batch in batches) / math.log(2)
    start = _random_words(len(batches[0].x) * model.n_latent, conditions.seed)
    stack = _STREAM.stack.AnsCoder(start)
    before = lowest = stack.num_valid_bits()
    for batch in tracked(batches, "bits-back coding"):
        lowest = min(lowest, coder.push(stack, batch.x, batch.y))
    coded = stack.num_valid_bits() - before
    stack = _STREAM.stack.AnsCoder(stack.get_compressed())
    for batch in tracked(batches[::-1], "bits-back decoding"):
        if not torch.equal(coder.pop(stack, len(batch.x), batch.y), coder.levels(batch.x)):
            raise RuntimeError("bits-back coding: an image was not decoded as it was coded")
    if not np.array_equal(stack.get_compressed(), start):
        raise RuntimeError("bits-back coding: the first bits were not recovered")
    dimensions = sum(batch.x.numel() for batch in batches)
    return {
        conditions.key("coded_bits_per_dim"): coded / dimensions,
        conditions.key("coding_overhead"): 100 * (coded / bits - 1),
        conditions.key("initial_bits"): float(before - lowest),
    }


class BitsBack:
    """Pushes batches of images on a stack of bits and pops them again, the last one first."""

    def __init__(self, model: VariationalAutoencoder) -> None:
        self.model = model
        device = next(model.parameters()).device
        edges = torch.arange(2**PRIOR_BITS + 1, dtype=torch.float64, device=device) / 2**PRIOR_BITS
        self.edges = torch.special.ndtri(edges)
        """Of the bins, (L + 1,), from minus to plus infinity."""
        self.middles = torch.special.ndtri((edges[1:] + edges[:-1]) / 2).float()

    def push(self, stack: Stack, x: Tensor, y: Tensor | None = None) -> int:
        """Code images x (B, C, H, W); the bits that the stack had at its lowest."""
        places = stack.decode(_TABLES, self._posterior(x, y))
        lowest = stack.num_valid_bits()
        stack.encode_reverse(self.levels(x).numpy().ravel(), _TABLES, self._pixels(places, len(x), y))
        stack.encode_reverse(places, _GRID)
        return lowest

    def pop(self, stack: Stack, n: int, y: Tensor | None = None) -> Tensor:
        """Decode a batch of n images, as levels (n, C, H, W) int32 on the CPU."""
        places = stack.decode(_GRID, n * self.model.n_latent)
        shape = (n, *self.model.likelihood.data_shape)
        levels = torch.from_numpy(stack.decode(_TABLES, self._pixels(places, n, y))).view(shape)
        x = (levels.float() / (self.n_levels - 1)).to(self.middles.device)
        stack.encode_reverse(places, _TABLES, self._posterior(x, y))
        return levels

    @property
    def n_levels(self) -> int:
        return self.model.likelihood.n_levels

    def levels(self, x: Tensor) -> Tensor:
        """x in data units as numbers of levels, int32 on the CPU."""
        return (x * (self.n_levels - 1)).round().int().cpu()

    def _posterior(self, x: Tensor, y: Tensor | None) -> np.ndarray:
        """q(z|x) of each bin, (B * D, L), in multiples of 2^-14; it may be 0, since such bins are never popped."""
        q = self.model.infer(x, y)
        assert isinstance(q, DiagonalNormal)
        mean, std = q.mean.double().flatten().unsqueeze(1), q.std.double().flatten().unsqueeze(1)
        cumulative = (torch.special.ndtr((self.edges - mean) / std) * 2**POSTERIOR_BITS).round()
        return (cumulative.diff(dim=1) / 2**POSTERIOR_BITS).float().cpu().numpy()

    def _pixels(self, places: np.ndarray, n: int, y: Tensor | None) -> np.ndarray:
        """p(x|z) of each level, (B * N, L), of the bins of z that are named."""
        z = self.middles[torch.from_numpy(places).long().to(self.middles.device)]
        eta = self.model.decode(z.view(1, n, *self.model.posterior.latent_shape), y)[0]
        p = self.model.likelihood.log_table(eta).exp().flatten(0, -2)
        return whole_numbers(p, BINARY_BITS if self.n_levels == 2 else LEVEL_BITS).cpu().numpy()


def whole_numbers(p: Tensor, bits: int) -> Tensor:
    """Probabilities (..., L) as multiples of 2^-bits, at least one each: the excess over one is scaled to fit."""
    above = (p * 2**bits - 1).clamp_(min=0).cumsum(-1)
    above = (above * ((2**bits - p.shape[-1]) / above[..., -1:])).round_()
    return (1 + above.diff(dim=-1, prepend=torch.zeros_like(above[..., :1]))) / 2**bits


def _random_words(n: int, seed: int) -> np.ndarray:
    """Random initial bits, 32 to a word; the last word has a 1, since a stack has no trailing zeros."""
    words = np.random.default_rng(derive_seed(seed, "initial bits")).integers(0, 2**32, n, dtype=np.uint32)
    words[-1] |= 1
    return words
