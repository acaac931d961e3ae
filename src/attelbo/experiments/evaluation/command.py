"""``attelbo evaluate``, and what it has in common with the end of ``attelbo train``."""

import time
from pathlib import Path
from typing import Any, TypeGuard

import torch

from attelbo.data import ImageDataModule, ParallelDataModule, ResidentDataModule
from attelbo.errors import ConfigError
from attelbo.experiments.boards.telling import boards_of
from attelbo.experiments.evaluation.classifier import classifier_of
from attelbo.experiments.evaluation.compression import COMPRESSION, check_compressible, evaluate_compression
from attelbo.experiments.evaluation.disentanglement import (
    DISENTANGLEMENT,
    check_factors,
    evaluate_disentanglement,
    has_factors,
)
from attelbo.experiments.evaluation.information import INFORMATION, evaluate_information
from attelbo.experiments.evaluation.likelihood import (
    evaluate_bound,
    evaluate_likelihood,
    evaluate_shifted,
    likelihood_measures,
)
from attelbo.experiments.evaluation.perplexity import PERPLEXITY, evaluate_perplexity
from attelbo.experiments.evaluation.quality import (
    INCEPTION,
    QUALITY,
    evaluate_inception,
    evaluate_quality,
    inception_metric,
)
from attelbo.experiments.evaluation.splits import SplitName, n_evaluated, split_key
from attelbo.experiments.evaluation.translation import evaluate_translation, translation_measure
from attelbo.experiments.rundir import RunDirectory
from attelbo.experiments.settings import Evaluation
from attelbo.experiments.tables import print_result
from attelbo.experiments.trained import Accelerator, Trained, Which, refuse
from attelbo.models import (
    EvidenceModel,
    LatentVariableModel,
    Model,
    SequenceToSequence,
    TextVAE,
    VariationalAutoencoder,
    checkpoint_of,
    read_config,
)
from attelbo.training.loggers import log_result
from attelbo.training.threads import use_threads

N_SAMPLES = 5000
"""Importance samples for each image, unless another number is asked for."""


def measure(
    model: Model, data: ResidentDataModule, split: SplitName, settings: Evaluation, seed: int, device: torch.device
) -> dict[str, Any]:
    """What every run is measured by, in the shape of ``result.json``: the model's own results; likelihood where it has
    a bound; information where q(z|x) has a density; BLEU where it translates."""
    started = time.perf_counter()
    model = model.to(device).eval()
    metrics = evaluate_bound(model, data, split, settings.batch_size, seed, device)
    measures = [*model.measures]
    result: dict[str, Any] = {"metrics": metrics, "measures": measures}
    if _has_likelihood(model):
        metrics |= evaluate_likelihood(model, data, split, settings, seed, device)
        if isinstance(model, TextVAE):
            nll = metrics[f"{split_key(split)}/nll"]
            metrics |= evaluate_perplexity(model, data, split, settings, nll, device)
            measures.insert(0, PERPLEXITY)
        likelihood, effective = likelihood_measures(data, split, settings)
        measures[:] = [likelihood, *measures, effective]
        result |= {"nll_samples": settings.n_samples, "nll_images": n_evaluated(data, split, settings)}
    if information := evaluate_information(model, data, split, settings, seed, device):
        metrics |= information
        measures += INFORMATION
    if settings.compress and isinstance(model, VariationalAutoencoder):
        metrics |= evaluate_compression(model, data, split, settings, seed, device)
        measures += COMPRESSION
    if split == "test":
        others, called = evaluate_shifted(model, data, settings.batch_size, seed, device)
        metrics |= others
        measures += called
    if isinstance(model, SequenceToSequence) and isinstance(data, ParallelDataModule):
        metrics |= evaluate_translation(model, data, split, settings, device)
        measures[:] = [translation_measure(model, data), *measures]
    result["seconds"] = {"evaluate": time.perf_counter() - started}
    return result


def evaluate(
    run: str,
    split: SplitName,
    n_samples: int | None,
    n_images: int | None,
    batch_size: int,
    chunk: int | None,
    checkpoint: Which,
    seed: int,
    accelerator: Accelerator,
    data_dir: str | None = None,
    compress: bool = False,
    disentanglement: bool | None = None,
    quality: bool = False,
    fid: bool = False,
) -> None:
    """``attelbo evaluate``: measure a finished run again and print the table; writes ``evaluation-<split>.json``,
    and tells the dashboards of the run, as a run of its own.

    Args:
        run: the run directory, or a folder whose newest run is meant.
        split: validation or test.
        n_samples: importance samples for each image, 5000 if None.
        n_images: so many of the split's images, spread evenly over it; all if None.
        batch_size: rows at a time.
        chunk: samples of each at a time; as many as suit the device if None.
        checkpoint: whose weights.
        seed: of the noise.
        accelerator: where.
        data_dir: where the data are now, if not where they were.
        compress: code the images by bits back, decode them and count the bits.
        disentanglement: scores of single latents for single factors; where y holds factors if None.
        quality: similarity of reconstructions, and distances of samples in the features of a classifier.
        fid: the Frechet Inception distance of samples.

    Raises:
        UserError: a number is out of range, not a run directory, it has no checkpoint, or something was asked for that
            this model, these data or this machine do not have.
    """
    try:
        asked = N_SAMPLES if n_samples is None else n_samples
        settings = Evaluation(asked, n_images, batch_size, chunk, checkpoint, compress)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    inception = inception_metric() if fid else None
    trained = Trained.of(run, checkpoint, accelerator, data_dir)
    model, data, device = trained.model, trained.data, trained.device
    if not _has_likelihood(model):
        why = f"{trained.described}: no likelihood to estimate"
        refuse(why, n_samples=n_samples, n_images=n_images, chunk=chunk)
    if not (isinstance(model, LatentVariableModel) and isinstance(data, ImageDataModule)):
        why = f"{trained.described}: no latent variables of images"
        refuse(why, disentanglement=disentanglement, quality=quality, fid=fid)
    if data.spec.row != "image":
        refuse(f"{trained.described}: no images to compare", quality=quality, fid=fid)
    if disentanglement:
        check_factors(data)
    if compress:
        check_compressible(model, data)
    trained.with_data()
    config, run_dir = read_config(trained.run_dir), RunDirectory(trained.run_dir)
    use_threads(config["trainer"]["threads"])
    result = measure(model, data, split, settings, seed, device)
    metrics, measures, seconds = result["metrics"], result["measures"], result["seconds"]
    if isinstance(model, LatentVariableModel) and isinstance(data, ImageDataModule):
        where = (data, split, batch_size, seed, device)
        if has_factors(data) if disentanglement is None else disentanglement:
            started = time.perf_counter()
            metrics |= evaluate_disentanglement(model, *where)
            measures += DISENTANGLEMENT
            seconds["disentanglement"] = time.perf_counter() - started
        if quality:
            started = time.perf_counter()
            folder = Path(config["paths"]["output_dir"]) / "classifiers"
            classifier, about = classifier_of(data, folder, device)
            metrics |= evaluate_quality(model, classifier, *where)
            measures += QUALITY
            result["classifier"] = {name: about[name] for name in ("folder", "validation_accuracy")}
            seconds["quality"] = time.perf_counter() - started
        if inception is not None:
            metrics |= evaluate_inception(inception, model, *where)
            measures += INCEPTION
    result |= {"checkpoint": checkpoint_of(trained.run_dir, checkpoint).stem, "seed": seed}
    run_dir.write(f"evaluation-{split}.json", result)
    print_result(result, trained.run_dir, split_key(split))
    with boards_of(run_dir, config, "evaluate", f"evaluate-{split}") as boards:
        log_result(boards, result)


def _has_likelihood(model: Model) -> TypeGuard[EvidenceModel]:
    """Whether its likelihood is one that importance sampling estimates."""
    return isinstance(model, EvidenceModel) and model.bounded
