"""Distributions over latents: what posteriors give for a batch."""

from attelbo.latent.distributions.base import Distribution
from attelbo.latent.distributions.low_rank_normal import LowRankNormal
from attelbo.latent.distributions.normal import DiagonalNormal, FullNormal
from attelbo.latent.distributions.point import Point

__all__ = ["DiagonalNormal", "Distribution", "FullNormal", "LowRankNormal", "Point"]
