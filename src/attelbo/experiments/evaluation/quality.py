"""Quality of images: reconstructions beside their originals, samples beside the data.

Samples are E[x|z] with z from the prior, as many as there are images in the split (at most ``MOST_ROWS``), and their
labels, for models that know of labels, those of the split.

Shapes: B batch, (C, H, W) image, D features.
"""

from functools import cache
from typing import Any

import torch

from attelbo.data import ImageDataModule
from attelbo.errors import ConfigError, one_line
from attelbo.experiments.evaluation.classifier import Classifier
from attelbo.experiments.evaluation.conditions import Conditions
from attelbo.metrics import Measure, SampleMean, frechet_distance, image_similarity, kernel_distance
from attelbo.models import LatentVariableModel
from attelbo.training.media import in_color

QUALITY = (
    Measure("psnr", "PSNR", "dB, reconstructions", better="more"),
    Measure("ssim", "SSIM", "reconstructions", 4, better="more"),
    Measure("ms_ssim", "MS-SSIM", "reconstructions", 4, better="more"),
    Measure(
        "classifier_frechet_distance", "Frechet distance", "samples, in the features of a classifier", 3, better="less"
    ),
    Measure("classifier_train_frechet_distance", "Frechet, training", "as many training images, for comparison", 3),
    Measure(
        "classifier_kernel_distance", "kernel distance", "samples, in the features of a classifier", 5, better="less"
    ),
    Measure("classifier_train_kernel_distance", "kernel, training", "as many training images, for comparison", 5),
)
INCEPTION = (Measure("fid", "FID", "samples, in Inception features", better="less"),)
MOST_ROWS = 10_000


@torch.inference_mode()
def evaluate_quality(
    model: LatentVariableModel,
    classifier: Classifier,
    data: ImageDataModule,
    conditions: Conditions,
) -> dict[str, float]:
    """PSNR, SSIM and MS-SSIM of reconstructions at the posterior mean; Frechet and kernel distance of samples to the
    split in the features of a classifier, and, for comparison, those of as many training images to a split that is not
    made of them.
    """
    similarity: SampleMean | None = None
    real, made = [], []
    for i, batch in enumerate(conditions.batches(data, MOST_ROWS)):
        similar = image_similarity(data.shown(batch.x), data.shown(model.reconstruct(batch.x, batch.y)).clamp(0, 1))
        similarity = similarity or SampleMean(tuple(similar)).to(conditions.device)
        similarity.update(similar)
        conditions.seed_noise("samples", i)
        real.append(classifier.features(batch.x))
        made.append(classifier.features(model.sample(len(batch.x), batch.y)))
    assert similarity is not None
    found = {name: float(value) for name, value in similarity.compute().items()}
    real, made = torch.cat(real), torch.cat(made)
    compared = {"": made}
    if conditions.split != "trained":
        conditions.seed_noise("training images")
        train = [classifier.features(b.x) for b in conditions.batches(data, len(real), "train")]
        compared["train_"] = torch.cat(train)
    for what, features in compared.items():
        if min(len(features), len(real)) > 1:
            found[f"classifier_{what}frechet_distance"] = frechet_distance(features, real)
            found[f"classifier_{what}kernel_distance"] = kernel_distance(features, real)
    return {conditions.key(name): value for name, value in found.items()}


@cache
def inception_metric() -> Any:
    """The Frechet Inception distance of torchmetrics, made once; also a check that it is available.

    Raises:
        ConfigError: torch-fidelity or the weights of its network are not there.
    """
    from torchmetrics.image import fid  # slow to import

    try:
        return fid.FrechetInceptionDistance(normalize=True)
    except (ImportError, OSError, RuntimeError) as error:
        raise ConfigError(
            "fid=true: needs the package torch-fidelity and the Inception weights that it downloads "
            f"(pip install torch-fidelity), quality=true needs neither: {one_line(error)}"
        ) from error


@torch.inference_mode()
def evaluate_inception(
    metric: Any,
    model: LatentVariableModel,
    data: ImageDataModule,
    conditions: Conditions,
) -> dict[str, float]:
    """The distance of samples to the split by ``inception_metric``; images without three channels are taken as gray."""
    metric = metric.to(conditions.device)
    metric.reset()
    for i, batch in enumerate(conditions.batches(data, MOST_ROWS)):
        conditions.seed_noise("samples", i)
        metric.update(in_color(data.shown(batch.x)).clamp(0, 1), real=True)
        metric.update(in_color(data.shown(model.sample(len(batch.x), batch.y))).clamp(0, 1), real=False)
    return {conditions.key("fid"): float(metric.compute())}
