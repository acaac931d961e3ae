"""Objectives: from evidence terms to the loss to minimize."""

from attelbo.latent.objectives.base import Objective, Turn
from attelbo.latent.objectives.elbo import ELBO
from attelbo.latent.objectives.iwae import IWAE
from attelbo.latent.objectives.rae import RAE

__all__ = ["ELBO", "IWAE", "RAE", "Objective", "Turn"]
