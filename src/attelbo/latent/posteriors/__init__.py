"""Posteriors q(z|x): heads on the encoder's features."""

from attelbo.latent.posteriors.base import Posterior
from attelbo.latent.posteriors.batch_normalized import BatchNormalizedPosterior
from attelbo.latent.posteriors.deterministic import DeterministicPosterior
from attelbo.latent.posteriors.diagonal_normal import DiagonalNormalPosterior
from attelbo.latent.posteriors.finite_scalar import FiniteScalarPosterior
from attelbo.latent.posteriors.flow import (
    InverseAutoregressivePosterior,
    PlanarPosterior,
    RadialPosterior,
    SylvesterPosterior,
)
from attelbo.latent.posteriors.full_normal import FullNormalPosterior
from attelbo.latent.posteriors.gamma import GammaPosterior
from attelbo.latent.posteriors.gumbel_softmax import GumbelSoftmaxPosterior
from attelbo.latent.posteriors.hamiltonian import HamiltonianPosterior
from attelbo.latent.posteriors.joint import JointPosterior
from attelbo.latent.posteriors.low_rank_normal import LowRankNormalPosterior
from attelbo.latent.posteriors.multi_scale_vector_quantized import MultiScaleVectorQuantizedPosterior
from attelbo.latent.posteriors.residual_vector_quantized import ResidualVectorQuantizedPosterior
from attelbo.latent.posteriors.riemannian_hamiltonian import RiemannianHamiltonianPosterior
from attelbo.latent.posteriors.spatial_normal import SpatialNormalPosterior
from attelbo.latent.posteriors.vector_quantized import VectorQuantizedPosterior
from attelbo.latent.posteriors.von_mises_fisher import VonMisesFisherPosterior
from attelbo.latent.posteriors.wrapped_normal import WrappedNormalPosterior

__all__ = [
    "BatchNormalizedPosterior",
    "DeterministicPosterior",
    "DiagonalNormalPosterior",
    "FiniteScalarPosterior",
    "FullNormalPosterior",
    "GammaPosterior",
    "GumbelSoftmaxPosterior",
    "HamiltonianPosterior",
    "InverseAutoregressivePosterior",
    "JointPosterior",
    "LowRankNormalPosterior",
    "MultiScaleVectorQuantizedPosterior",
    "PlanarPosterior",
    "Posterior",
    "RadialPosterior",
    "ResidualVectorQuantizedPosterior",
    "RiemannianHamiltonianPosterior",
    "SpatialNormalPosterior",
    "SylvesterPosterior",
    "VectorQuantizedPosterior",
    "VonMisesFisherPosterior",
    "WrappedNormalPosterior",
]
