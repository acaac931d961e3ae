"""Scores: how well a key answers a query."""

from attelbo.attention.scores.base import Score
from attelbo.attention.scores.dot import Dot, ScaledDot

__all__ = ["Dot", "ScaledDot", "Score"]
