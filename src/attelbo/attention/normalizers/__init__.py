"""Normalizers: from scores to weights."""

from attelbo.attention.normalizers.base import Normalizer
from attelbo.attention.normalizers.off_by_one import SoftmaxOffByOne
from attelbo.attention.normalizers.sigmoid import Sigmoid
from attelbo.attention.normalizers.sink import LearnedSink
from attelbo.attention.normalizers.softmax import Softmax
from attelbo.attention.normalizers.sparse import Entmax15, Sparsemax
from attelbo.attention.normalizers.top_k import TopK

__all__ = ["Entmax15", "LearnedSink", "Normalizer", "Sigmoid", "Softmax", "SoftmaxOffByOne", "Sparsemax", "TopK"]
