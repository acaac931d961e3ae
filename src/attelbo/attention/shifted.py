"""Token shift: a share of the features that a layer reads of a token are those of the token before it.

    x_t -> [first features of x_(t-1), other features of x_t]

So heads can look for pairs of neighbours from the first layer on. A token takes nothing, that is zeros, from one before
it that it may not attend to: of another document, or padding.

Source: Peng et al. 2023, "RWKV: Reinventing RNNs for the Transformer Era" (arXiv:2305.13048), section 3.1.1, where each
feature is a learned mixture of both tokens; taking some from one and some from the other is its earliest form, and that
of x-transformers.

Shapes: B batch, T tokens, E features of a token, F of them from the token before.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from attelbo.attention.masks import Mask


class TokenShift:
    """The shift in one pass of a block, for its layers one after the other.

    Args:
        n_features: F.
        first: the position of the first token.
        like: (..., T, E), which tells T and the device.
        mask: who may attend to whom.
        last: what each layer has read last, from the pass over the tokens before, and then from this one.
    """

    def __init__(self, n_features: int, first: int, like: Tensor, mask: Mask | None, last: dict[str, Tensor]) -> None:
        self.n_features = n_features
        self.last = last
        at = torch.arange(first, first + like.shape[-2], device=like.device)
        linked = (at > 0).unsqueeze(0)
        if mask is not None:
            batch = torch.arange(mask.batch_size or 1, device=like.device).unsqueeze(1)
            linked = linked & mask.allowed(batch, at, (at - 1).clamp(min=0))
        self.cut = ~linked.unsqueeze(-1)  # (B or 1, T, 1)

    def __call__(self, layer: str, x: Tensor) -> Tensor:
        """x (B, T, E), read by the layer of this name -> (B, T, E)."""
        own, others = x.split([self.n_features, x.shape[-1] - self.n_features], -1)
        last = self.last.get(layer)
        before = torch.cat([torch.zeros_like(own[:, :1]) if last is None else last, own[:, :-1]], 1)
        self.last[layer] = own[:, -1:]
        return torch.cat([before.masked_fill(self.cut, 0.0), others], -1)

    def into(self, name: str, layer: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """The layer of this name, of shifted tokens."""
        return lambda x: layer(self(name, x))
