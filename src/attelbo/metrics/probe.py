"""How useful a representation is: the accuracy of simple classifiers on it, trained on few labels or on all.

Alain & Bengio 2017, "Understanding intermediate layers using linear classifier probes".

Shapes: N training rows, M test rows, D dimensions.
"""

import math
from statistics import fmean, variance
from typing import Any, NamedTuple

import torch
from torch import Tensor

NEIGHBOURS = 5
DRAWS = 5
"""Random subsets of the labels, if only some are used."""


class Accuracy(NamedTuple):
    """A share of the M rows, and its standard error, over the rows and, if labels were drawn, the draws."""

    value: float
    std_error: float


def probe_accuracy(
    codes: Tensor, labels: Tensor, tried: Tensor, answers: Tensor, n_labels: int | None, seed: int
) -> dict[str, Accuracy]:
    """The accuracy of a logistic regression on standardized codes (``linear``), and of the ``NEIGHBOURS`` nearest rows
    in the unstandardized codes (``knn``).

    Args:
        codes: of the training rows, (N, D).
        labels: their classes, (N,), int64.
        tried: codes of the test rows, (M, D).
        answers: their classes, (M,).
        n_labels: how many of the N rows to use, drawn ``DRAWS`` times; all if None.
        seed: of the draws.

    Raises:
        ValueError: more labels than rows.
    """
    from sklearn.linear_model import LogisticRegression  # slow to import
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if n_labels is not None and not 1 <= n_labels <= len(codes):
        raise ValueError(f"n_labels must be in 1..{len(codes)}, got {n_labels}")
    generator = torch.Generator().manual_seed(seed)
    draws = (
        [slice(None)]
        if n_labels is None
        else [torch.randperm(len(codes), generator=generator)[:n_labels] for _ in range(DRAWS)]
    )
    found: dict[str, list[float]] = {"linear": [], "knn": []}
    for rows in draws:
        x, y = codes[rows].double().cpu().numpy(), labels[rows].cpu().numpy()
        probes: dict[str, Any] = {
            "linear": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
            "knn": KNeighborsClassifier(min(NEIGHBOURS, len(x))),
        }
        for name, probe in probes.items():
            if len(set(y.tolist())) > 1:
                guessed = torch.from_numpy(probe.fit(x, y).predict(tried.double().cpu().numpy()))
            else:  # there is nothing to learn
                guessed = labels[rows][:1].cpu()
            found[name].append(float((guessed == answers.cpu()).double().mean()))
    return {name: _accuracy(values, len(tried)) for name, values in found.items()}


def _accuracy(values: list[float], n: int) -> Accuracy:
    mean = fmean(values)
    of_draws = variance(values) / len(values) if len(values) > 1 else 0.0
    return Accuracy(mean, math.sqrt(mean * (1 - mean) / n + of_draws))
