"""Normalizers: from scores to weights."""

from attelbo.attention.normalizers.base import Normalizer
from attelbo.attention.normalizers.softmax import Softmax

__all__ = ["Normalizer", "Softmax"]
