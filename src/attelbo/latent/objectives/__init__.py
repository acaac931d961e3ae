"""Objectives: from evidence terms to the loss to minimize."""

from attelbo.latent.objectives.base import Objective, Turn
from attelbo.latent.objectives.elbo import ELBO
from attelbo.latent.objectives.iwae import IWAE

__all__ = ["ELBO", "IWAE", "Objective", "Turn"]
