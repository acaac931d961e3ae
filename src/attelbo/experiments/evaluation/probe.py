"""Probes: how well simple classifiers recognize labels, which the model was not told, from its latents."""

import torch
from torch import Tensor

from attelbo.data import ImageDataModule
from attelbo.data.batch import Split
from attelbo.errors import ConfigError
from attelbo.experiments.evaluation.conditions import Conditions
from attelbo.metrics import Measure, probe_accuracy
from attelbo.models import LatentVariableModel
from attelbo.seeding import derive_seed

N_LABELS = (100, 1000, None)
"""None: all of the training rows."""

_NAMES = {"linear": "linear probe", "knn": "nearest neighbours"}


def _key(name: str, n_labels: int | None) -> str:
    return f"probe_{name}_{n_labels or 'all'}"


PROBE = tuple(
    Measure(
        _key(name, n), f"{label}, {f'{n:,}' if n else 'all'} labels", "accuracy from posterior means", 4, better="more"
    )
    for name, label in _NAMES.items()
    for n in N_LABELS
)


def check_labelled(model: LatentVariableModel, data: ImageDataModule) -> None:
    """Raise ConfigError where the data have no classes, or the model's encoder is given them."""
    if model.encodes_labels:
        raise ConfigError(
            f"probe=true: the encoder of a {type(model).__name__} is told the label, which its latents may only repeat"
        )
    if not data.spec.n_classes:
        raise ConfigError(f"probe=true: {data.spec.name} has no labels to tell from the latents")


@torch.inference_mode()
def evaluate_probe(model: LatentVariableModel, data: ImageDataModule, conditions: Conditions) -> dict[str, float]:
    """The accuracy, in a split, of classifiers that learn from the posterior means of training rows, with its standard
    error, which a single row does not have; see :func:`attelbo.metrics.probe_accuracy`. Numbers of labels that the data
    do not have are left out."""
    conditions.seed_noise("probe")
    (codes, labels), (tried, answers) = (_encoded(model, data, conditions, of) for of in ("train", conditions.split))
    found: dict[str, float] = {}
    for n in N_LABELS:
        if n is None or n < len(codes):
            seed = derive_seed(conditions.seed, "probe")
            for name, accuracy in probe_accuracy(codes, labels, tried, answers, n, seed).items():
                key = conditions.key(_key(name, n))
                found |= {key: accuracy.value}
                found |= {f"{key}_std_error": accuracy.std_error} if len(tried) > 1 else {}
    return found


def _encoded(
    model: LatentVariableModel, data: ImageDataModule, conditions: Conditions, split: Split
) -> tuple[Tensor, Tensor]:
    """Posterior means (N, D) and labels (N,) of the rows whose label is known."""
    means, labels = [], []
    for batch in conditions.batches(data, data.n_rows(split), split):
        means.append(model.encode(batch.x, batch.y).cpu())
        labels.append(batch.y)
    y = torch.cat(labels).cpu()
    return torch.cat(means)[y >= 0], y[y >= 0]
