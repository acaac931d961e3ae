"""How much of a codebook is used: perplexity, as in van den Oord et al. 2017 and its successors, and share of codes.

Shapes: B batch, S the positions of codes, Q codebooks, K codes in each.
"""

import torch
from torch import Tensor
from torchmetrics import Metric


class CodeUsage(Metric):
    """The distribution of codes over a split, all positions together.

    ``perplexity`` is exp(-sum_k p_k log p_k), between 1 and K: the number of equally used codes with the same entropy;
    for several codebooks the geometric mean. ``code_usage`` is the share of codes that occur at all.

    Args:
        n_codes: K.
        n_codebooks: Q; if more than one, the last dimension of the codes indexes them.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, n_codes: int, n_codebooks: int = 1) -> None:
        super().__init__()
        self.shape = n_codebooks, n_codes
        self.add_state("counts", torch.zeros(n_codebooks * n_codes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, codes: Tensor) -> None:
        """Take in the codes of a batch, (B, *S)."""
        n_codebooks, n_codes = self.shape
        offsets = n_codes * torch.arange(n_codebooks, device=codes.device)
        places = (codes.reshape(-1, n_codebooks) + offsets).flatten()
        self.counts = self.counts.index_add(0, places, torch.ones_like(places))

    def compute(self) -> dict[str, Tensor]:
        counts = self.counts.view(self.shape).double()
        shares = counts / counts.sum(-1, keepdim=True)
        entropy = torch.special.entr(shares).sum(-1).mean()
        return {"perplexity": entropy.exp().float(), "code_usage": (counts > 0).double().mean().float()}
