"""Posteriors q(z|x): heads on the encoder's features."""

from attelbo.latent.posteriors.base import Posterior
from attelbo.latent.posteriors.deterministic import DeterministicPosterior
from attelbo.latent.posteriors.diagonal_normal import DiagonalNormalPosterior
from attelbo.latent.posteriors.flow import (
    InverseAutoregressivePosterior,
    PlanarPosterior,
    RadialPosterior,
    SylvesterPosterior,
)
from attelbo.latent.posteriors.full_normal import FullNormalPosterior
from attelbo.latent.posteriors.low_rank_normal import LowRankNormalPosterior

__all__ = [
    "DeterministicPosterior",
    "DiagonalNormalPosterior",
    "FullNormalPosterior",
    "InverseAutoregressivePosterior",
    "LowRankNormalPosterior",
    "PlanarPosterior",
    "Posterior",
    "RadialPosterior",
    "SylvesterPosterior",
]
