"""Additional terms of the loss that are not likelihoods."""

from attelbo.latent.extras.base import Extra
from attelbo.latent.extras.ms_ssim import MSSSIM
from attelbo.latent.extras.perceptual import Perceptual

__all__ = ["MSSSIM", "Extra", "Perceptual"]
