"""Residual connections: how the output of a layer f is added to its input x.

    pre_norm       x + f(norm(x))            Xiong et al. 2020, figure 1 (b)
    post_norm      norm(x + f(x))            Vaswani et al. 2017, section 3.1
    sandwich_norm  x + norm'(f(norm(x)))     Ding et al. 2021 (CogView), section 2.4
    deepnorm       norm(alpha x + f(x))      Wang et al. 2022 (DeepNet), figure 2
    rezero         x + a f(x), a = 0         Bachlechner et al. 2020, eq. 1, with no norm; a is learned

In each form the branch f may have a learned factor for each feature (LayerScale: Touvron et al. 2021, "Going deeper
with Image Transformers", eq. 3), and be dropped for some rows (stochastic depth: Huang et al. 2016, eq. 2).

Shapes: B batch, T tokens, E features of a token.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attelbo.attention.norms import NormName, norm_layer
from attelbo.checks import check_below_one, check_choice, check_positive

ResidualForm = Literal["pre_norm", "post_norm", "sandwich_norm", "deepnorm", "rezero"]


class Residual(nn.Module):
    """x (B, T, E), and a layer that keeps its shape -> both together (B, T, E).

    Stochastic depth differs from the paper: branches that are kept are divided by the probability of being kept in
    training, and nothing is scaled in evaluation.

    Args:
        dim: E.
        form: which.
        norm: see ``norms``.
        bias: whether norms have one.
        alpha: of deepnorm, see :func:`deepnorm_constants`; 1 in the other forms.
        layer_scale: the initial factor of each feature of the branch; None: no factor.
        drop: the probability with which a row adds nothing, in training.

    Raises:
        ValueError: no such form or norm, an alpha or a factor that is not positive, a probability outside [0, 1), or
            two learned factors.
    """

    def __init__(
        self,
        dim: int,
        form: ResidualForm = "pre_norm",
        *,
        norm: NormName = "layer",
        bias: bool = True,
        alpha: float = 1.0,
        layer_scale: float | None = None,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        check_choice("residual", form, ResidualForm)
        check_positive(alpha=alpha, **({} if layer_scale is None else {"layer_scale": layer_scale}))
        check_below_one(drop_path=drop)
        if form == "rezero" and layer_scale is not None:
            raise ValueError("layer_scale must be null where residual=rezero has a learned factor of its own")
        self.form: ResidualForm = form
        self.alpha = alpha
        self.drop = drop
        self.norm = nn.Identity() if form == "rezero" else norm_layer(norm, dim, bias)
        self.norm_of_added = norm_layer(norm, dim, bias) if form == "sandwich_norm" else nn.Identity()
        factor = torch.zeros(()) if form == "rezero" else None
        factor = factor if layer_scale is None else torch.full((dim,), float(layer_scale))
        self.factor = None if factor is None else nn.Parameter(factor)

    def forward(self, x: Tensor, layer: Callable[[Tensor], Tensor]) -> Tensor:
        """x (B, T, E) -> (B, T, E)."""
        both = (x if self.alpha == 1 else self.alpha * x) + self.branch(x, layer)
        return both if ends_with_norm(self.form) else self.norm(both)

    def branch(self, x: Tensor, layer: Callable[[Tensor], Tensor]) -> Tensor:
        """What is added to x: (B, T, E) -> (B, T, E)."""
        added = self.norm_of_added(layer(self.norm(x) if ends_with_norm(self.form) else x))
        if self.factor is not None:
            added = self.factor * added
        if self.drop > 0 and self.training:
            added = added * F.dropout(x.new_ones(len(x), 1, 1), self.drop)
        return added


def ends_with_norm(form: str) -> bool:
    """Whether a stack of blocks of this form has a norm after the last one: if the blocks do not end with one. For
    ReZero this differs from the paper: with tied embeddings, which start small, a language model would have small
    logits without it.
    """
    return form not in ("post_norm", "deepnorm")


def deepnorm_constants(layers: int, *, cross: bool = False, decoder_layers: int = 0) -> tuple[float, float]:
    """alpha, by which x is multiplied, and beta, the gain of initial weights (Wang et al. 2022, figure 2).

    Args:
        layers: N of an encoder or of a language model; M of a decoder.
        cross: whether it is a decoder that attends to an encoder.
        decoder_layers: M of the decoder that attends to this encoder; 0: there is none.
    """
    if decoder_layers:
        size = (layers**4 * decoder_layers) ** (1 / 16)
        return 0.81 * size, 0.87 / size
    added = (3 if cross else 2) * layers
    return added ** (1 / 4), (4 * added) ** (-1 / 4)
