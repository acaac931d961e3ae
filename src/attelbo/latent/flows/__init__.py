"""Normalizing flows: invertible maps with tractable Jacobian determinants."""

from attelbo.latent.flows.autoregressive import InverseAutoregressive, MaskedAutoregressive
from attelbo.latent.flows.base import Chain, Flow, Inverse
from attelbo.latent.flows.coupling import AffineCoupling
from attelbo.latent.flows.masked_network import MaskedNetwork
from attelbo.latent.flows.planar import Planar
from attelbo.latent.flows.radial import Radial
from attelbo.latent.flows.sylvester import Sylvester

__all__ = [
    "AffineCoupling",
    "Chain",
    "Flow",
    "Inverse",
    "InverseAutoregressive",
    "MaskedAutoregressive",
    "MaskedNetwork",
    "Planar",
    "Radial",
    "Sylvester",
]
