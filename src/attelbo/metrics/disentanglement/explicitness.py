"""Explicitness: how well a linear classifier predicts the values of a factor from the codes.

Ridgeway & Mozer 2018, "Learning Deep Disentangled Embeddings with the F-Statistic Loss", sec. 3.

Shapes: N rows, D latent dimensions, F factors.
"""

import torch
from torch import Tensor

_TEST_SHARE = 0.2
"""Of the rows, held out."""


def held_out(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """The rows that a fitted predictor is tried on, and those that it learns from."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    tried, learned = order.tensor_split([max(1, round(_TEST_SHARE * n))])
    return tried, learned


def explicitness(codes: Tensor, factors: Tensor, seed: int) -> float:
    """The mean over factors of the mean over their values of 2 AUC - 1, AUC being the area under the curve of the
    probability of this value against all others, on held-out rows: 0 at chance.

    Differs from the paper: one logistic regression of all values of a factor in place of one for each value, on
    standardized codes.

    Args:
        codes: posterior means, (N, D).
        factors: classes, (N, F), int64.
        seed: of the train-test split.
    """
    from sklearn.linear_model import LogisticRegression  # slow to import
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    tried, learned = held_out(len(codes), seed)
    x, y = codes.double().cpu(), factors.cpu()
    found = []
    for labels in y.unbind(1):
        if len(labels[learned].unique()) < 2:
            found.append(0.0)
            continue
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        scores = model.fit(x[learned].numpy(), labels[learned].numpy()).predict_proba(x[tried].numpy())
        areas = [
            2 * float(roc_auc_score(there.numpy(), scores[:, place])) - 1
            for place, value in enumerate(model.classes_)
            if 0 < int((there := labels[tried] == int(value)).sum()) < len(there)
        ]
        found.append(sum(areas) / len(areas) if areas else 0.0)
    return sum(found) / len(found)
