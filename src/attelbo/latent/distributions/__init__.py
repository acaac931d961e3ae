"""Distributions over latents: what posteriors return for a batch."""

from attelbo.latent.distributions.base import Distribution
from attelbo.latent.distributions.categorical import OneHotCategorical, RelaxedOneHot
from attelbo.latent.distributions.gamma import Gamma
from attelbo.latent.distributions.hamiltonian import Hamiltonian
from attelbo.latent.distributions.joint import Joint
from attelbo.latent.distributions.layered import Layered
from attelbo.latent.distributions.low_rank_normal import LowRankNormal
from attelbo.latent.distributions.normal import DiagonalNormal, FullNormal, normal_kl
from attelbo.latent.distributions.point import Point
from attelbo.latent.distributions.quantized import Quantized
from attelbo.latent.distributions.riemannian_hamiltonian import RiemannianHamiltonian
from attelbo.latent.distributions.transformed_normal import InvertibleNormal, TransformedNormal
from attelbo.latent.distributions.von_mises_fisher import VonMisesFisher
from attelbo.latent.distributions.wrapped_normal import WrappedNormal

__all__ = [
    "DiagonalNormal",
    "Distribution",
    "FullNormal",
    "Gamma",
    "Hamiltonian",
    "InvertibleNormal",
    "Joint",
    "Layered",
    "LowRankNormal",
    "OneHotCategorical",
    "Point",
    "Quantized",
    "RelaxedOneHot",
    "RiemannianHamiltonian",
    "TransformedNormal",
    "VonMisesFisher",
    "WrappedNormal",
    "normal_kl",
]
