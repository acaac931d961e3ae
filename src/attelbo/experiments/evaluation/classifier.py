"""A small classifier of a data set's labels or factors, in whose features samples and data are compared.

It is trained once for each data set, from a seed of its own, and kept with its provenance in
``<output_dir>/classifiers/<data>-<hash>/``: all runs on these data are measured by the same features. It takes
``STEPS`` optimizer steps, but no more than ``PASSES`` over the training rows; ``result.json`` says how many.

Shapes: B batch, (C, H, W) image, D features, V values of all labels or factors together.
"""

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attelbo.data import ImageDataModule
from attelbo.errors import ConfigError
from attelbo.experiments.evaluation.splits import batches
from attelbo.experiments.provenance import provenance
from attelbo.experiments.rundir import digest
from attelbo.experiments.terminal import tracked
from attelbo.files import replacing, write_atomically
from attelbo.networks import ConvEncoder
from attelbo.seeding import derive_seed
from attelbo.training import seed_default_generator

N_FEATURES = 64
STEPS = 1000
PASSES = 100
BATCH_SIZE = 128
LEARNING_RATE = 2e-3
_SEED = 0
_EVALUATED_AT_ONCE = 500


class Classifier(nn.Module):
    """x (B, C, H, W) -> logits (B, V), through D features.

    Args:
        shape: (C, H, W).
        n_values: of the label, or of each factor.
    """

    def __init__(self, shape: Sequence[int], n_values: Sequence[int]) -> None:
        super().__init__()
        self.n_values = tuple(n_values)
        self.encoder = ConvEncoder(shape, channels=(32, 64, 128))
        self.hidden = nn.Linear(math.prod(self.encoder.out_shape), N_FEATURES)
        self.heads = nn.Linear(N_FEATURES, sum(n_values))

    def features(self, x: Tensor) -> Tensor:
        """(B, D), in -1..1: an image unlike any in the data is far from them, but by a bounded distance."""
        return self.hidden(self.encoder(x).flatten(1)).tanh()

    def forward(self, x: Tensor) -> Tensor:
        return self.heads(self.features(x))

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The cross-entropy of all factors y (B, F) together, nats."""
        logits = self(x).split(self.n_values, 1)
        return torch.stack([F.cross_entropy(part, y[:, k]) for k, part in enumerate(logits)]).sum()

    def correct(self, x: Tensor, y: Tensor) -> Tensor:
        """Which factors of y (B, F) are recognized, (B, F)."""
        return torch.stack([part.argmax(1) for part in self(x).split(self.n_values, 1)], 1) == y


def classifier_of(data: ImageDataModule, folder: Path, device: torch.device) -> tuple[Classifier, dict[str, Any]]:
    """The classifier of a data set, trained now if ``folder`` has none, and its provenance."""
    recipe = _recipe(data)
    place = folder / f"{data.spec.name}-{digest(recipe)}"
    weights, about = place / "classifier.pt", place / "provenance.json"
    if about.is_file():  # written last
        classifier = Classifier(data.spec.shape, recipe["n_values"])
        classifier.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        return classifier.to(device).eval(), json.loads(about.read_text(encoding="utf-8")) | {"folder": str(place)}
    started = time.perf_counter()
    classifier = _train(data, recipe["n_values"], recipe["steps"], device)
    known = {
        "recipe": recipe,
        "validation_accuracy": accuracy(classifier, data, device),
        "seconds": time.perf_counter() - started,
        **provenance({"seed": _SEED, "data": {"name": data.spec.name}}, [], data.checksums()),
    }
    with replacing(weights) as file:
        torch.save(classifier.state_dict(), file)
    write_atomically(about, json.dumps(known, indent=2) + "\n")
    return classifier, known | {"folder": str(place)}


@torch.inference_mode()
def accuracy(classifier: Classifier, data: ImageDataModule, device: torch.device) -> float:
    """The share of labels, or of all factors of all images, that is recognized in the validation split."""
    n, correct = data.n_rows("validation"), 0.0
    for batch in batches(data, "validation", n, _EVALUATED_AT_ONCE, device):
        correct += float(classifier.correct(batch.x, _columns(batch.y)).double().mean(1).sum())
    return correct / n


def check_classifiable(data: ImageDataModule) -> None:
    """Raise ConfigError where the data have neither classes nor factors."""
    if not _n_values(data):
        raise ConfigError(f"quality=true: {data.spec.name} has neither classes nor factors to train a classifier on")


def _n_values(data: ImageDataModule) -> list[int]:
    """Of the label, or of each factor."""
    return [data.spec.n_classes] if data.spec.n_classes else [factor.n_values for factor in data.source.factors]


def _recipe(data: ImageDataModule) -> dict[str, Any]:
    """What determines the weights."""
    return {
        "data": data.checksums()["train"],
        "binarize": data.binarize,
        "flip": data.flip,
        "crop": data.crop,
        "nuisance": data.nuisance,
        "n_values": _n_values(data),
        "shape": list(data.spec.shape),
        "features": N_FEATURES,
        "steps": min(STEPS, PASSES * _steps_of_a_pass(data)),
        "batch_size": BATCH_SIZE,
        "learning_rate": LEARNING_RATE,
    }


def _steps_of_a_pass(data: ImageDataModule) -> int:
    return max(1, data.n_rows("train") // BATCH_SIZE)


def _train(data: ImageDataModule, n_values: Sequence[int], n_steps: int, device: torch.device) -> Classifier:
    seed_default_generator(derive_seed(_SEED, "classifier"), torch.device("cpu"))
    classifier = Classifier(data.spec.shape, n_values).to(device)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    n, per_epoch = data.n_rows("train"), _steps_of_a_pass(data)
    split = "train" if data.n_labels is None else "trained"  # where the model learns from few labels, with all of them
    order: Tensor = torch.empty(0)
    for step in tracked(range(n_steps), "classifier"):
        epoch, place = divmod(step, per_epoch)
        if place == 0:
            generator = torch.Generator().manual_seed(derive_seed(_SEED, "classifier order", epoch))
            order = torch.randperm(n, generator=generator).to(device)
        seed_default_generator(derive_seed(_SEED, "classifier step", step), device)
        batch = data.materialize(order[place * BATCH_SIZE : (place + 1) * BATCH_SIZE], split)
        optimizer.zero_grad()
        classifier.loss(batch.x, _columns(batch.y)).backward()
        optimizer.step()
        schedule.step()
    return classifier.eval()


def _columns(y: Tensor | None) -> Tensor:
    """Labels (B,) or factors (B, F) as (B, F)."""
    assert y is not None
    return y if y.ndim == 2 else y.unsqueeze(1)
