"""Classifiers of images and texts: a network to features, and a linear layer to classes.

Vision transformers (Dosovitskiy et al. 2021, arXiv:2010.11929), the encoders of VAEs with or without attention, and
transformers or recurrent networks over tokens (attention pooling: Yang et al. 2016).

    x -- body --> h -- linear --> logits -- softmax --> p(y|x)        loss = -log p(y|x)

Shapes: B batch, (C, H, W) image, T tokens, D features, Y classes.
Units: nats, averaged over rows.
"""

import math
from collections.abc import Sequence
from typing import Literal, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attelbo.building import Spec, part
from attelbo.checks import check_below_one
from attelbo.data.batch import PAD, Batch, DataSpec
from attelbo.errors import ConfigError
from attelbo.metrics import Measure, SampleMean
from attelbo.models.base import Model, Monitor, Terms, compute_and_reset
from attelbo.models.conditional import check_labels
from attelbo.models.parts import model_arguments
from attelbo.networks import (
    AttentionParts,
    AttentionSpecs,
    PatchEmbedding,
    Standardize,
    TokenEmbedding,
    TokenEncoder,
    patch_grid,
)


class Classifier(Model):
    """p(y|x) by cross-entropy.

    Args:
        body: from x to features (B, D) or (B, *shape), which are flattened.
        n_features: D.
        n_classes: Y.
        optimizer: its configuration.
        scheduler: the learning rate's.
        label_smoothing: the share of the target that is spread evenly over all classes (Szegedy et al. 2016, section
            7), in training and evaluation: above 0, the loss is not the cross-entropy of the labels.
        dropout: on the features, in training.
        standardize: of images, before the body; none if None.
    """

    def __init__(
        self,
        body: nn.Module,
        n_features: int,
        n_classes: int,
        optimizer: Spec,
        scheduler: Spec,
        label_smoothing: float = 0.0,
        dropout: float = 0.0,
        standardize: Standardize | None = None,
    ) -> None:
        super().__init__(optimizer, scheduler)
        self.standardize = standardize
        self.body = body
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(n_features, n_classes))
        self.label_smoothing = label_smoothing
        self.means = SampleMean(("loss", "accuracy"))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, Y) of images (B, C, H, W) or tokens (B, T)."""
        return self.head(self.body(x if self.standardize is None else self.standardize(x)))

    def on_fit_start(self) -> None:
        """Learn the mean and standard deviation of the training images.

        Raises:
            ConfigError: the trainer has only a loader, without a data module that knows them.
        """
        if self.standardize is not None:
            self.standardize.learn(*self.ask_data("pixel_moments", "model.standardize"))

    def losses(self, batch: Batch) -> Terms:
        return {name: values.mean() for name, values in self._terms(batch).items()}

    def _terms(self, batch: Batch) -> Terms:
        """Of each row, (B,)."""
        assert batch.y is not None, "labels are needed"
        logits = self(batch.x)
        loss = F.cross_entropy(logits, batch.y, reduction="none", label_smoothing=self.label_smoothing)
        return {"loss": loss, "accuracy": (logits.detach().argmax(-1) == batch.y).to(loss.dtype)}

    def evaluation_step(self, batch: Batch) -> None:
        self.means.update(self._terms(batch))

    def evaluation_results(self) -> Terms:
        return compute_and_reset(self.means)

    @property
    def monitor(self) -> Monitor | None:
        return "val/accuracy", "max"

    @property
    def measures(self) -> Sequence[Measure]:
        smoothed = f", labels smoothed by {self.label_smoothing}" if self.label_smoothing else ""
        return (
            Measure("accuracy", "accuracy", "of the labels", 4, better="more"),
            Measure("loss", "cross-entropy", f"nats{smoothed}", 4, better="less"),
        )

    @torch.no_grad()
    def classify(self, x: Tensor) -> Tensor:
        """p(y|x) of x (B, C, H, W) or (B, T): (B, Y)."""
        return self(x).softmax(-1)

    def predicted(self, batch: Batch) -> Tensor:
        """p(y|x), (B, Y)."""
        return self.classify(batch.x)


def build_image_classifier(
    data: DataSpec,
    encoder: Spec,
    optimizer: Spec,
    scheduler: Spec,
    label_smoothing: float = 0.0,
    dropout: float = 0.0,
    standardize: bool = False,
) -> Classifier:
    """Compose a classifier of images from the encoder of a VAE, with images standardized if asked for.

    Raises:
        ConfigError: the data are no images or lack labels, or an argument is out of range.
    """
    n_classes = _check(data, "images", label_smoothing=label_smoothing, dropout=dropout)
    body = part("encoder", encoder, in_shape=data.shape)
    options = (label_smoothing, dropout, Standardize(data.shape[0]) if standardize else None)
    return Classifier(body, math.prod(body.out_shape), n_classes, optimizer, scheduler, *options)


def build_vision_transformer(
    data: DataSpec,
    patch: int,
    dim: int,
    network: Spec,
    pooling: Spec,
    optimizer: Spec,
    scheduler: Spec,
    label_smoothing: float = 0.0,
    dropout: float = 0.0,
    standardize: bool = False,
    **specs: Unpack[AttentionSpecs],
) -> Classifier:
    """Compose a vision transformer from its configuration, with images standardized if asked for.

    Raises:
        ConfigError: the data are no images or lack labels, an argument is out of range, or parts do not fit together.
    """
    n_classes = _check(data, "images", label_smoothing=label_smoothing, dropout=dropout)
    pool = part("pooling", pooling, dim=dim)
    parts = AttentionParts(**specs, n_global=pool.n_own)
    with model_arguments():
        size = patch_grid(data.shape, patch)
    places = parts.position_of(dim, math.prod(size) + pool.n_own, causal=False, size=size)
    body = TokenEncoder(
        PatchEmbedding(data.shape, patch, dim, places, dropout),
        part("network", network, dim=dim, parts=parts, position=places, causal=False),
        pool,
    )
    options = (label_smoothing, dropout, Standardize(data.shape[0]) if standardize else None)
    return Classifier(body, dim, n_classes, optimizer, scheduler, *options)


def build_text_classifier(
    data: DataSpec,
    dim: int,
    network: Spec,
    pooling: Spec,
    optimizer: Spec,
    scheduler: Spec,
    label_smoothing: float = 0.0,
    dropout: float = 0.0,
    **specs: Unpack[AttentionSpecs],
) -> Classifier:
    """Compose a classifier of texts from its configuration.

    Raises:
        ConfigError: the data are no texts or lack labels, an argument is out of range, or parts do not fit together.
    """
    n_classes = _check(data, "texts", label_smoothing=label_smoothing, dropout=dropout)
    assert data.n_tokens is not None
    pool = part("pooling", pooling, dim=dim)
    parts = AttentionParts(**specs, n_global=pool.n_own)
    places = parts.position_of(dim, data.shape[0] + pool.n_own, causal=False)
    body = TokenEncoder(
        TokenEmbedding(data.n_tokens, dim, places, dropout),
        part("network", network, dim=dim, parts=parts, position=places, causal=False),
        pool,
        padding=PAD if data.pads else None,
    )
    return Classifier(body, dim, n_classes, optimizer, scheduler, label_smoothing, dropout)


def _check(data: DataSpec, takes: Literal["images", "texts"], **shares: float) -> int:
    """The number of classes of data that can be classified.

    Raises:
        ConfigError: they cannot, or one of the ``shares`` is outside [0, 1).
    """
    kinds = ("tokens",) if takes == "texts" else ("binary", "levels", "real")
    if data.kind not in kinds:
        raise ConfigError(f"model: this is a classifier of {takes}, and {data.name} has {data.kind}")
    n_classes = check_labels("Classifier", data)
    if data.n_labels is not None:
        raise ConfigError(
            f"model: Classifier needs the label of every row, and data.n_labels={data.n_labels} keeps few; "
            "data.train_size takes fewer rows, model=m2 learns from those without label too"
        )
    with model_arguments():
        check_below_one(**shares)
    return n_classes
