"""Softmax with a learned sink: each head learns how strongly it attends to nothing.

    w_s = exp(z_s) / (exp(a_n) + sum_j exp(z_j))

Source: OpenAI 2025, "gpt-oss-120b & gpt-oss-20b Model Card", section 2.2, a learned number for each head in the
denominator of the softmax; Xiao et al. 2024, "Efficient Streaming Language Models with Attention Sinks", section 3.3, a
sink that is a key and a value. Ours starts at a_n = 0, which is softmax off by one.

Shapes: N heads, S keys.
"""

import torch
from torch import Tensor, nn

from attelbo.attention.normalizers.base import Normalizer
from attelbo.attention.precision import full_precision
from attelbo.checks import check_at_least


class LearnedSink(Normalizer, nn.Module):
    """Softmax with one additional score, learned for each head, whose weight is discarded: the weights sum to less than
    one.

    Args:
        heads: N.

    Raises:
        ValueError: ``heads`` below 1.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        check_at_least(1, heads=heads)
        self.logits = nn.Parameter(torch.zeros(heads))
        """a, (N,)."""

    def normalize(self, scores: Tensor) -> Tensor:
        # softmax Z / (exp(a) + Z), Z the sum of exponentials.
        sink = full_precision(self.logits)[:, None, None]
        return torch.softmax(scores, dim=-1) * torch.sigmoid(torch.logsumexp(scores, dim=-1, keepdim=True) - sink)
