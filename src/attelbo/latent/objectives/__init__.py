"""Objectives: from evidence terms to the loss to minimize."""

from attelbo.latent.objectives.adversarial import Adversarial
from attelbo.latent.objectives.base import Objective, Turn
from attelbo.latent.objectives.beta_tc import BetaTC
from attelbo.latent.objectives.capacity import Capacity
from attelbo.latent.objectives.ciwae import CIWAE
from attelbo.latent.objectives.dip import DIP
from attelbo.latent.objectives.dreg import DReG
from attelbo.latent.objectives.elbo import ELBO
from attelbo.latent.objectives.factor import Factor
from attelbo.latent.objectives.info import InfoVAE
from attelbo.latent.objectives.iwae import IWAE
from attelbo.latent.objectives.lagging import Lagging
from attelbo.latent.objectives.miwae import MIWAE
from attelbo.latent.objectives.piwae import PIWAE
from attelbo.latent.objectives.rae import RAE
from attelbo.latent.objectives.sliced_wasserstein import SlicedWasserstein
from attelbo.latent.objectives.vae_gan import VAEGAN
from attelbo.latent.objectives.wae_mmd import WAEMMD

__all__ = [
    "CIWAE",
    "DIP",
    "ELBO",
    "IWAE",
    "MIWAE",
    "PIWAE",
    "RAE",
    "VAEGAN",
    "WAEMMD",
    "Adversarial",
    "BetaTC",
    "Capacity",
    "DReG",
    "Factor",
    "InfoVAE",
    "Lagging",
    "Objective",
    "SlicedWasserstein",
    "Turn",
]
