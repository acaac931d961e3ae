"""Positions: how attention knows where a token stands."""

from attelbo.attention.positions.alibi import Alibi
from attelbo.attention.positions.base import NoPosition, Position
from attelbo.attention.positions.contextual import Contextual
from attelbo.attention.positions.continuous_bias import ContinuousBias
from attelbo.attention.positions.learned import Learned
from attelbo.attention.positions.relative_bias import RelativeBias
from attelbo.attention.positions.rotary import AxialRotary, Rotary, XPos
from attelbo.attention.positions.sinusoidal import Sinusoidal, Sinusoidal2d

__all__ = [
    "Alibi",
    "AxialRotary",
    "Contextual",
    "ContinuousBias",
    "Learned",
    "NoPosition",
    "Position",
    "RelativeBias",
    "Rotary",
    "Sinusoidal",
    "Sinusoidal2d",
    "XPos",
]
