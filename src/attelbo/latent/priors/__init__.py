"""Priors p(z): density, samples and the KL from a posterior."""

from attelbo.latent.priors.autoregressive_convolutional import AutoregressiveConvolutional
from attelbo.latent.priors.autoregressive_recurrent import AutoregressiveRecurrent
from attelbo.latent.priors.base import Density, Prior, sampled_kl
from attelbo.latent.priors.class_conditional_normal import ClassConditionalNormal
from attelbo.latent.priors.diffusion import Diffusion
from attelbo.latent.priors.flow import IAF, MAF, RealNVP
from attelbo.latent.priors.gamma import GammaPrior
from attelbo.latent.priors.joint import JointPrior
from attelbo.latent.priors.mixture_of_gaussians import MixtureOfGaussians
from attelbo.latent.priors.standard_normal import StandardNormal
from attelbo.latent.priors.two_stage import TwoStage
from attelbo.latent.priors.uniform_categorical import UniformCategorical
from attelbo.latent.priors.uniform_codes import UniformCodes
from attelbo.latent.priors.uniform_sphere import UniformSphere
from attelbo.latent.priors.vamp import VampPrior
from attelbo.latent.priors.wrapped_normal import WrappedNormalPrior

__all__ = [
    "IAF",
    "MAF",
    "AutoregressiveConvolutional",
    "AutoregressiveRecurrent",
    "ClassConditionalNormal",
    "Density",
    "Diffusion",
    "GammaPrior",
    "JointPrior",
    "MixtureOfGaussians",
    "Prior",
    "RealNVP",
    "StandardNormal",
    "TwoStage",
    "UniformCategorical",
    "UniformCodes",
    "UniformSphere",
    "VampPrior",
    "WrappedNormalPrior",
    "sampled_kl",
]
