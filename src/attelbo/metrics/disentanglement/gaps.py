"""Scores from a table of the information of each latent about each factor: MIG, modularity, SAP.

- Mutual information gap: Chen, Li, Grosse & Duvenaud 2018, "Isolating Sources of Disentanglement in VAEs", eq. 6.
- Modularity: Ridgeway & Mozer 2018, "Learning Deep Disentangled Embeddings with the F-Statistic Loss", sec. 3.
- Separated attribute predictability: Kumar, Sattigeri & Balakrishnan 2018, "Variational Inference of Disentangled
  Latent Concepts from Unlabeled Observations", sec. 3.

Shapes: N rows, D latent dimensions, F factors, V values of a factor.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

N_BINS = 20
"""Of equal width, as in Locatello et al. 2019."""


def pairwise_mutual_information(codes: Tensor, factors: Tensor, n_bins: int = N_BINS) -> Tensor:
    """I(z_j; v_k) of each latent, cut into bins of equal width over its range, and each factor.

    The plug-in estimate: too large by about (n_bins - 1)(V - 1) / 2N.

    Args:
        codes: (N, D).
        factors: classes, (N, F), int64.
        n_bins: bins of each latent.

    Returns:
        (D, F), nats, float64.
    """
    bins = _bins(codes.double(), n_bins)  # (N, D)
    n_rows, n_codes = codes.shape
    offset = torch.arange(n_codes, device=codes.device) * n_bins
    columns = []
    for factor in factors.unbind(1):
        value, n_values = factor - factor.min(), int(factor.max() - factor.min()) + 1
        cell = (bins + offset) * n_values + value.unsqueeze(1)
        counts = torch.bincount(cell.flatten(), minlength=n_codes * n_bins * n_values)
        joint = counts.view(n_codes, n_bins, n_values).double() / n_rows
        separate = _entropy(joint.sum(2)) + _entropy(joint.sum(1))
        columns.append(separate - _entropy(joint.flatten(1)))
    return torch.stack(columns, 1).clamp(min=0)


def mutual_information_gap(codes: Tensor, factors: Tensor) -> float:
    """The mean over factors of [I(z_1; v) - I(z_2; v)] / H(v), with z_1 and z_2 the two most informative latents about
    v.

    Differs from the paper: latents are discretized, where the paper integrates over the density of q(z_j|x). If a
    factor has more values than there are bins, it stays below 1.

    Args:
        codes: samples of z, (N, D).
        factors: classes, (N, F), int64; each must vary.
    """
    return float(gaps(share_of_information(codes, factors)).mean())


def share_of_information(codes: Tensor, factors: Tensor) -> Tensor:
    """I(z_j; v_k) / H(v_k), in 0..1, (D, F); see :func:`mutual_information_gap`."""
    entropy = torch.stack([_entropy(torch.bincount(v - v.min()).double() / len(v)) for v in factors.unbind(1)])
    return pairwise_mutual_information(codes, factors) / entropy


def gaps(table: Tensor) -> Tensor:
    """The largest less the second largest of each column of (D, F), none below 0: (F,). A single latent is compared
    with a constant code."""
    best = torch.cat([table, torch.zeros_like(table[:1])]).topk(2, 0).values
    return best[0] - best[1]


def modularity(codes: Tensor, factors: Tensor) -> float:
    """The mean over latents of 1 - sum_{k != best} I(z_j; v_k)^2 / [(F - 1) I(z_j; v_best)^2].

    Differs from the paper: latents without information about any factor are left out (0 if there are no others).

    Args:
        codes: posterior means, (N, D).
        factors: classes, (N, F), int64, F at least 2.
    """
    information = pairwise_mutual_information(codes, factors)
    information = information[information.amax(1) > 1e-12]  # beyond rounding
    if not len(information):
        return 0.0
    squares = (information / information.amax(1, keepdim=True)).square()
    return float((1 - (squares.sum(1) - 1) / (information.shape[1] - 1)).mean())


def separated_attribute_predictability(codes: Tensor, factors: Tensor, ordered: Sequence[bool]) -> float:
    """The mean over factors of the gap between the two latents that are individually most predictive.

    The score of a latent is the squared correlation for an ordered factor, and for an unordered one the balanced
    accuracy of the best thresholds, one fewer than classes.

    Differs from the paper: the accuracy is rescaled to be 0 at chance and 1 at best, like a squared correlation.

    Args:
        codes: posterior means, (N, D).
        factors: classes, (N, F), int64.
        ordered: for each factor, whether neighbouring classes are alike.
    """
    return float(gaps(predictability(codes, factors, ordered)).mean())


def predictability(codes: Tensor, factors: Tensor, ordered: Sequence[bool]) -> Tensor:
    """How well each latent predicts each factor, in 0..1, (D, F); see :func:`separated_attribute_predictability`."""
    codes = codes.double()
    columns = [
        _squared_correlation(codes, factor.double()) if in_order else _threshold_accuracy(codes, factor)
        for factor, in_order in zip(factors.unbind(1), ordered, strict=True)
    ]
    return torch.stack(columns, 1)


def _squared_correlation(codes: Tensor, factor: Tensor) -> Tensor:
    """(D,); 0 for a code that is constant."""
    codes, factor = codes - codes.mean(0), factor - factor.mean()
    variance = codes.square().sum(0) * factor.square().sum()
    return torch.where(variance > 0, (codes.T @ factor).square() / variance, 0.0)


def _threshold_accuracy(codes: Tensor, factor: Tensor) -> Tensor:
    """(D,), balanced accuracies, rescaled to 0 at chance."""
    from sklearn.metrics import balanced_accuracy_score  # slow to import
    from sklearn.tree import DecisionTreeClassifier

    labels, scores = factor.cpu().numpy(), []
    n_classes = len(factor.unique())
    for code in codes.cpu().numpy().T:
        tree = DecisionTreeClassifier(max_leaf_nodes=n_classes, class_weight="balanced", random_state=0)
        predicted = tree.fit(code[:, None], labels).predict(code[:, None])
        scores.append(balanced_accuracy_score(labels, predicted, adjusted=True))
    return torch.tensor(scores, dtype=torch.float64)


def _bins(codes: Tensor, n_bins: int) -> Tensor:
    """(N, D), int64; a constant code falls into one bin."""
    low, high = codes.aminmax(dim=0)
    width = torch.where(high > low, high - low, 1.0)
    return ((codes - low) / width * n_bins).long().clamp(max=n_bins - 1)


def _entropy(p: Tensor) -> Tensor:
    """-sum p log p over the last dimension, nats."""
    return torch.special.entr(p).sum(-1)
