"""Likelihoods p(x|z): from the decoder's output to a probability or a density of x."""

from attelbo.latent.likelihoods.base import Likelihood
from attelbo.latent.likelihoods.bernoulli import Bernoulli
from attelbo.latent.likelihoods.discretized_logistic import DiscretizedLogistic
from attelbo.latent.likelihoods.normal import Normal

__all__ = ["Bernoulli", "DiscretizedLogistic", "Likelihood", "Normal"]
