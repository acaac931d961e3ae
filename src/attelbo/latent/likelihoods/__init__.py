"""Likelihoods p(x|z): from the decoder's output to a probability or a density of x."""

from attelbo.latent.likelihoods.base import Likelihood
from attelbo.latent.likelihoods.bernoulli import Bernoulli
from attelbo.latent.likelihoods.beta_binomial import BetaBinomial
from attelbo.latent.likelihoods.categorical import CategoricalLevels
from attelbo.latent.likelihoods.continuous_bernoulli import ContinuousBernoulli
from attelbo.latent.likelihoods.discretized_logistic import DiscretizedLogistic
from attelbo.latent.likelihoods.heteroscedastic_normal import HeteroscedasticNormal
from attelbo.latent.likelihoods.hyperbolic_secant import HyperbolicSecant
from attelbo.latent.likelihoods.laplace import Laplace
from attelbo.latent.likelihoods.logistic_mixture import LogisticMixture
from attelbo.latent.likelihoods.normal import Normal
from attelbo.latent.likelihoods.rescaled import Rescaled

__all__ = [
    "Bernoulli",
    "BetaBinomial",
    "CategoricalLevels",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "HeteroscedasticNormal",
    "HyperbolicSecant",
    "Laplace",
    "Likelihood",
    "LogisticMixture",
    "Normal",
    "Rescaled",
]
