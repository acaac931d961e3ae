"""Positions: how attention knows where a token stands."""

from attelbo.attention.positions.base import NoPosition, Position

__all__ = ["NoPosition", "Position"]
