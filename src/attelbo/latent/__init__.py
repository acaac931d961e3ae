"""The latent side of a model: posteriors, priors, likelihoods, objectives. Pure torch, usable alone."""

from attelbo.latent import schedules, spaces
from attelbo.latent.distributions import (
    DiagonalNormal,
    Distribution,
    FullNormal,
    Layered,
    LowRankNormal,
    Point,
    normal_kl,
)
from attelbo.latent.evidence import Evidence, Generative
from attelbo.latent.importance import ImportanceEstimate, estimate_log_likelihood
from attelbo.latent.likelihoods import (
    Bernoulli,
    BetaBinomial,
    CategoricalLevels,
    ContinuousBernoulli,
    DiscretizedLogistic,
    Laplace,
    Likelihood,
    LogisticMixture,
    Normal,
)
from attelbo.latent.objectives import ELBO, IWAE, RAE, Objective, Turn
from attelbo.latent.posteriors import (
    DeterministicPosterior,
    DiagonalNormalPosterior,
    FullNormalPosterior,
    LowRankNormalPosterior,
    Posterior,
)
from attelbo.latent.priors import MixtureOfGaussians, Prior, StandardNormal, sampled_kl

__all__ = [
    "ELBO",
    "IWAE",
    "RAE",
    "Bernoulli",
    "BetaBinomial",
    "CategoricalLevels",
    "ContinuousBernoulli",
    "DeterministicPosterior",
    "DiagonalNormal",
    "DiagonalNormalPosterior",
    "DiscretizedLogistic",
    "Distribution",
    "Evidence",
    "FullNormal",
    "FullNormalPosterior",
    "Generative",
    "ImportanceEstimate",
    "Laplace",
    "Layered",
    "Likelihood",
    "LogisticMixture",
    "LowRankNormal",
    "LowRankNormalPosterior",
    "MixtureOfGaussians",
    "Normal",
    "Objective",
    "Point",
    "Posterior",
    "Prior",
    "StandardNormal",
    "Turn",
    "estimate_log_likelihood",
    "normal_kl",
    "sampled_kl",
    "schedules",
    "spaces",
]
