"""Priors p(z): density, samples and the KL of a posterior to them."""

from attelbo.latent.priors.base import Prior, sampled_kl
from attelbo.latent.priors.flow import MAF, RealNVP
from attelbo.latent.priors.mixture_of_gaussians import MixtureOfGaussians
from attelbo.latent.priors.standard_normal import StandardNormal

__all__ = ["MAF", "MixtureOfGaussians", "Prior", "RealNVP", "StandardNormal", "sampled_kl"]
