"""The latent side of a model: posteriors, priors, likelihoods, objectives. Pure torch, usable alone."""

from attelbo.latent import schedules
from attelbo.latent.distributions import DiagonalNormal, Distribution, FullNormal
from attelbo.latent.evidence import Evidence
from attelbo.latent.importance import ImportanceEstimate, estimate_log_likelihood
from attelbo.latent.likelihoods import Bernoulli, DiscretizedLogistic, Likelihood, Normal
from attelbo.latent.objectives import ELBO, IWAE, Objective
from attelbo.latent.posteriors import DiagonalNormalPosterior, FullNormalPosterior, Posterior
from attelbo.latent.priors import MixtureOfGaussians, Prior, StandardNormal

__all__ = [
    "ELBO",
    "IWAE",
    "Bernoulli",
    "DiagonalNormal",
    "DiagonalNormalPosterior",
    "DiscretizedLogistic",
    "Distribution",
    "Evidence",
    "FullNormal",
    "FullNormalPosterior",
    "ImportanceEstimate",
    "Likelihood",
    "MixtureOfGaussians",
    "Normal",
    "Objective",
    "Posterior",
    "Prior",
    "StandardNormal",
    "estimate_log_likelihood",
    "schedules",
]
