"""Priors p(z): density, samples and the KL of a posterior to them."""

from attelbo.latent.priors.base import Prior, sampled_kl
from attelbo.latent.priors.mixture_of_gaussians import MixtureOfGaussians
from attelbo.latent.priors.standard_normal import StandardNormal

__all__ = ["MixtureOfGaussians", "Prior", "StandardNormal", "sampled_kl"]
