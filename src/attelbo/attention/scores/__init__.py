"""Scores: how well a key matches a query."""

from attelbo.attention.scores.additive import Additive, Concat
from attelbo.attention.scores.base import DotProductScore, Score, is_dot_product
from attelbo.attention.scores.cosine import Cosine
from attelbo.attention.scores.distance import Distance
from attelbo.attention.scores.dot import Dot, ScaledDot
from attelbo.attention.scores.general import General
from attelbo.attention.scores.lengthened import Lengthened
from attelbo.attention.scores.location import Location

__all__ = [
    "Additive",
    "Concat",
    "Cosine",
    "Distance",
    "Dot",
    "DotProductScore",
    "General",
    "Lengthened",
    "Location",
    "ScaledDot",
    "Score",
    "is_dot_product",
]
