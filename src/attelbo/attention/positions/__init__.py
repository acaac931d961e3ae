"""Positions: how attention knows where a token stands."""

from attelbo.attention.positions.base import NoPosition, Position
from attelbo.attention.positions.learned import Learned
from attelbo.attention.positions.sinusoidal import Sinusoidal

__all__ = ["Learned", "NoPosition", "Position", "Sinusoidal"]
