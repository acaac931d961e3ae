"""Disentanglement, completeness and informativeness.

Eastwood & Williams 2018, "A Framework for the Quantitative Evaluation of Disentangled Representations", sec. 2.

Shapes: N rows, D latent dimensions, F factors.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attelbo.metrics.disentanglement.explicitness import held_out

N_TREES = 20
"""In each forest."""


class DCI(NamedTuple):
    """Three scores in 0..1, and what they are computed from."""

    disentanglement: float
    """Whether each latent matters for only one factor."""
    completeness: float
    """Whether only one latent matters for each factor."""
    informativeness: float
    """The accuracy with which the factors are predicted, on held-out rows."""
    importance: Tensor
    """How much each latent matters for each factor, (D, F)."""
    accuracies: Tensor
    """Of each factor, (F,)."""


def dci(codes: Tensor, factors: Tensor, seed: int) -> DCI:
    """Each factor is predicted from all latents by a random forest, whose feature importances are used.

    Differs from the paper: forests of classifiers for all factors, and informativeness is an accuracy where the paper
    has an error. Every split may choose among all latents; otherwise irrelevant ones would get some importance.

    Args:
        codes: posterior means, (N, D).
        factors: classes, (N, F), int64.
        seed: of the train-test split and of the forests.
    """
    from sklearn.ensemble import RandomForestClassifier  # slow to import

    tried, learned = held_out(len(codes), seed)
    x, y = codes.double().cpu(), factors.cpu()
    importances, accuracies = [], []
    for f in range(y.shape[1]):
        forest: Any = RandomForestClassifier(N_TREES, max_features=None, random_state=seed % 2**32)  # pyright: ignore[reportArgumentType]
        forest.fit(x[learned].numpy(), y[learned, f].numpy())
        importances.append(torch.from_numpy(forest.feature_importances_))
        accuracies.append(forest.score(x[tried].numpy(), y[tried, f].numpy()))
    importance, accuracy = torch.stack(importances, 1), torch.tensor(accuracies, dtype=torch.float64)
    return DCI(*importance_scores(importance), float(accuracy.mean()), importance, accuracy)


def importance_scores(importance: Tensor) -> tuple[float, float]:
    """Disentanglement and completeness of R (D, F), how much each latent matters for each factor.

    1 minus the entropy of a row, in units of log F, is the disentanglement of a latent, and 1 minus that of a column,
    in units of log D, the completeness of a factor; each is weighted by its total importance.
    """

    def weighed(r: Tensor) -> float:
        total = r.sum(1)
        return float((concentrations(r) * total).sum() / total.sum()) if float(total.sum()) > 0 else 0.0

    return weighed(importance), weighed(importance.T)


def concentrations(r: Tensor) -> Tensor:
    """1 minus the entropy of each row of (n, m), in units of log m; 1 for a row of zeros: (n,)."""
    total = r.sum(1, keepdim=True)
    share = r / torch.where(total > 0, total, 1.0)
    return 1 - torch.special.entr(share).sum(1) / (math.log(r.shape[1]) if r.shape[1] > 1 else 1.0)
