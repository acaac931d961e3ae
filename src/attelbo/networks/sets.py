"""Networks of sets: from unordered elements, some of which are padding, to a few vectors.

Source: Zaheer et al. 2017, "Deep Sets"; Lee et al. 2019, "Set Transformer: A Framework for Attention-based
Permutation-Invariant Neural Networks", section 4.

Shapes: B sets, N elements, D numbers of an element, E features inside, O output vectors of F numbers each.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from attelbo.attention import ISAB, PMA, SAB, Padding
from attelbo.attention.layer import check_heads
from attelbo.attention.sets.padding import without_padding
from attelbo.checks import check_at_least, check_choice, check_repetitions
from attelbo.networks.layers import NEAR_ZERO, initialize, positive, relu_layers

SetPooling = Literal["mean", "sum", "max"]


class DeepSets(nn.Module):
    """x (B, N, D) -> (B, O, F): a network on each element, pooling, a network on the result.

    Each network is linear layers with ReLUs between them.

    Args:
        in_features: D.
        n_outputs: O.
        out_features: F.
        encoder: units of each layer on the elements.
        decoder: units of each layer but the last after pooling; empty for a linear one.
        pool: over the elements that are not padding, at least one.

    Raises:
        ValueError: no layer on the elements, a size below 1, no such pooling.
    """

    def __init__(
        self,
        in_features: int,
        n_outputs: int,
        out_features: int,
        *,
        encoder: Sequence[int] = (64, 64, 64, 64),
        decoder: Sequence[int] = (64,),
        pool: SetPooling = "max",
    ) -> None:
        super().__init__()
        check_choice("pool", pool, SetPooling)
        if not encoder:
            raise ValueError("encoder must name at least one layer, got []")
        check_at_least(1, in_features=in_features, n_outputs=n_outputs, out_features=out_features)
        self.pool: SetPooling = pool
        self.encoder = relu_layers((in_features, *positive("encoder", encoder)))
        self.decoder = relu_layers((encoder[-1], *positive("decoder", decoder), n_outputs * out_features), NEAR_ZERO)
        self.out_shape = (n_outputs, out_features)

    def forward(self, x: Tensor, mask: Padding | None = None) -> Tensor:
        h = self.encoder(without_padding(x, mask))
        if mask is None:
            pooled = h.amax(1) if self.pool == "max" else h.sum(1) if self.pool == "sum" else h.mean(1)
        else:
            there = mask.valid.unsqueeze(-1)
            if self.pool == "max":
                pooled = h.masked_fill(~there, torch.finfo(h.dtype).min).amax(1)
            else:
                pooled = (h * there).sum(1)
                if self.pool == "mean":
                    pooled = pooled / there.sum(1)
        return self.decoder(pooled).unflatten(-1, self.out_shape)


class SetTransformer(nn.Module):
    """x (B, N, D) -> (B, O, F): a linear layer, self-attention blocks on the elements, pooling by O seeds (PMA),
    self-attention blocks on these, a linear layer.

    The first layer is ours; the authors' first block has projections from D to E in its place.

    Args:
        in_features: D.
        n_outputs: O.
        out_features: F.
        dim: E.
        heads: of all attention; must divide ``dim``.
        layers: blocks of the elements.
        n_points: inducing points of the blocks of the elements (ISAB); None: full attention (SAB).
        decoder_layers: blocks of the seeds (SAB).
        norm: LayerNorm in each block, as in the paper; the authors' experiments are without.

    Raises:
        ValueError: a number is out of range, heads that do not divide ``dim``.
    """

    def __init__(
        self,
        in_features: int,
        n_outputs: int,
        out_features: int,
        *,
        dim: int = 128,
        heads: int = 4,
        layers: int = 2,
        n_points: int | None = 16,
        decoder_layers: int = 1,
        norm: bool = False,
    ) -> None:
        super().__init__()
        check_heads(dim, heads)
        check_at_least(1, in_features=in_features, out_features=out_features)
        check_repetitions(0, layers=layers, decoder_layers=decoder_layers)
        self.embed = initialize(nn.Linear(in_features, dim))
        self.encoder = nn.ModuleList(
            SAB(dim, heads, norm=norm) if n_points is None else ISAB(dim, heads, n_points, norm=norm)
            for _ in range(layers)
        )
        self.pool = PMA(dim, heads, n_outputs, norm=norm)
        self.decoder = nn.ModuleList(SAB(dim, heads, norm=norm) for _ in range(decoder_layers))
        self.output = initialize(nn.Linear(dim, out_features), scale=NEAR_ZERO)

    def forward(self, x: Tensor, mask: Padding | None = None) -> Tensor:
        h = self.embed(without_padding(x, mask))
        for block in self.encoder:
            h = block(h, mask=mask)
        h = self.pool(h, mask=mask)
        for block in self.decoder:
            h = block(h)
        return self.output(h)
