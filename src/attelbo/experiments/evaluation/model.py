"""All that is measured of a trained model: the same at the end of ``attelbo train`` and in ``attelbo evaluate``."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard

from attelbo.data import ImageDataModule, ParallelDataModule, ResidentDataModule
from attelbo.data.batch import Evaluated
from attelbo.experiments.evaluation.classifier import check_classifiable, classifier_of
from attelbo.experiments.evaluation.compression import COMPRESSION, check_compressible, evaluate_compression
from attelbo.experiments.evaluation.conditions import Conditions
from attelbo.experiments.evaluation.disentanglement import (
    MOST_LATENTS,
    disentanglement_measures,
    evaluate_disentanglement,
    has_factors,
)
from attelbo.experiments.evaluation.inference_gaps import check_gaps, evaluate_gaps, gap_measures
from attelbo.experiments.evaluation.information import evaluate_information
from attelbo.experiments.evaluation.lengths import check_lengths, evaluate_lengths, write_lengths
from attelbo.experiments.evaluation.likelihood import (
    evaluate_bound,
    evaluate_likelihood,
    evaluate_shifted,
    likelihood_measures,
)
from attelbo.experiments.evaluation.perplexity import PERPLEXITY, evaluate_perplexity
from attelbo.experiments.evaluation.probe import PROBE, check_labelled, evaluate_probe
from attelbo.experiments.evaluation.quality import (
    INCEPTION,
    QUALITY,
    evaluate_inception,
    evaluate_quality,
    inception_metric,
)
from attelbo.experiments.evaluation.tables import write_tables
from attelbo.experiments.evaluation.translation import evaluate_translation, translation_measure
from attelbo.experiments.settings import Evaluation
from attelbo.experiments.trained import refuse
from attelbo.models import (
    EvidenceModel,
    LatentVariableModel,
    Model,
    SequenceToSequence,
    TextVAE,
    VariationalAutoencoder,
)
from attelbo.training.media import Picture

OUTPUTS = Path("outputs")


def check_evaluation(
    settings: Evaluation,
    model: Model,
    data: ResidentDataModule,
    described: str,
    config: Mapping[str, Any],
    split: Evaluated = "test",
) -> None:
    """Check that a model can be measured as asked for; no row of the data is read.

    Args:
        settings: what is asked for.
        model: the model.
        data: its data.
        described: the model in words, for errors.
        config: the run's configuration.
        split: the rows that will be measured.

    Raises:
        ConfigError: the model, its data or this machine lack something for it.
    """
    scores = {
        "disentanglement": settings.disentanglement,
        "representation": None if settings.representation == "published" else settings.representation,
    }
    if not (isinstance(model, LatentVariableModel) and isinstance(data, ImageDataModule)):
        others = {"quality": settings.quality, "probe": settings.probe, "fid": settings.fid}
        refuse(f"{described}: no latent variables of images", **scores, **others)
    else:
        if not has_factors(data):
            refuse(f"{data.spec.name} has no factors of variation; data=sprites and data=dsprites have", **scores)
        elif not _are_scored(model, data, settings):
            why = "no scores are computed that read it; disentanglement=true computes them"
            refuse(why, representation=scores["representation"])
        if data.spec.row != "image":
            refuse(f"{described}: no images to compare", quality=settings.quality, fid=settings.fid)
        if settings.quality:
            check_classifiable(data)
        if settings.probe:
            check_labelled(model, data)
    if settings.fid:
        inception_metric()
    if settings.compress:
        check_compressible(model, data)
    if settings.gaps:
        check_gaps(model, described)
    check_lengths(settings, model, data, config, split)


def evaluate_model(
    model: Model,
    data: ResidentDataModule,
    conditions: Conditions,
    output_dir: Path = OUTPUTS,
    config: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Measure a model; the result in the shape of ``result.json``: the model's own metrics; likelihood where it has a
    bound; information where q(z|x) has a density; disentanglement where y holds factors; BLEU where it translates.
    ``drawn`` has, by name, functions that write further tables and pictures to the path of a PNG file.

    Args:
        model: what was trained.
        data: its data.
        conditions: the rows that are measured, how, and what else.
        output_dir: the folder of all runs, where the classifier of a data set is kept.
        config: the run's configuration, for rows of other lengths.
    """
    seconds: dict[str, float] = {}
    model, settings = model.to(conditions.device).eval(), conditions.settings
    drawn: dict[str, Callable[[Path], Picture]] = {}
    with _timed(seconds, "evaluate"):
        result = _evaluate_any(model, data, conditions)
    metrics, measures = result["metrics"], result["measures"]
    if _diverged(metrics, conditions):
        return result | {"seconds": seconds, "drawn": drawn}
    if isinstance(model, LatentVariableModel) and isinstance(data, ImageDataModule):
        if _are_scored(model, data, settings):
            with _timed(seconds, "disentanglement"):
                found = evaluate_disentanglement(model, data, conditions)
            if found is not None:
                metrics |= {conditions.key(name): value for name, value in found.scores.items()}
                measures += disentanglement_measures(found)
                drawn["factors"] = partial(write_tables, found)
        if settings.quality:
            with _timed(seconds, "quality"):
                classifier, about = classifier_of(data, output_dir / "classifiers", conditions.device)
                metrics |= evaluate_quality(model, classifier, data, conditions)
            measures += QUALITY
            result["classifier"] = {
                "folder": about["folder"],
                "steps": about["recipe"]["steps"],
                "validation_accuracy": about["validation_accuracy"],
            }
        if settings.probe:
            with _timed(seconds, "probe"):
                metrics |= evaluate_probe(model, data, conditions)
            measures += PROBE
        if settings.fid:
            with _timed(seconds, "fid"):
                metrics |= evaluate_inception(inception_metric(), model, data, conditions)
            measures += INCEPTION
    if settings.lengths and config is not None:
        with _timed(seconds, "lengths"):
            found = evaluate_lengths(model, data, conditions, config)
        metrics |= found.metrics(conditions.split)
        measures += found.shown()
        drawn["lengths"] = partial(write_lengths, found)
    return result | {"seconds": seconds, "drawn": drawn}


def _are_scored(model: LatentVariableModel, data: ImageDataModule, settings: Evaluation) -> bool:
    """Whether its latents are scored for factors: where that is asked for or, by default, with few latents."""
    by_itself = has_factors(data) and model.n_latent <= MOST_LATENTS
    return by_itself if settings.disentanglement is None else settings.disentanglement


def _evaluate_any(model: Model, data: ResidentDataModule, conditions: Conditions) -> dict[str, Any]:
    """Measure what any kind of model may have."""
    settings = conditions.settings
    metrics = evaluate_bound(model, data, conditions)
    measures = [*model.measures]
    result: dict[str, Any] = {"metrics": metrics, "measures": measures}
    if _diverged(metrics, conditions):
        return result
    if has_likelihood(model):
        metrics |= evaluate_likelihood(model, data, conditions)
        if isinstance(model, TextVAE):
            metrics |= evaluate_perplexity(model, data, conditions, metrics[conditions.key("nll")])
            measures.insert(0, PERPLEXITY)
        likelihood, effective = likelihood_measures(model, data, conditions)
        measures[:] = [likelihood, *measures, effective]
        result |= {"nll_samples": settings.n_samples, "nll_images": conditions.n_rows(data)}
    information, called = evaluate_information(model, data, conditions)
    metrics |= information
    measures += called
    if settings.compress and isinstance(model, VariationalAutoencoder):
        metrics |= evaluate_compression(model, data, conditions)
        measures += COMPRESSION
    if settings.gaps and isinstance(model, VariationalAutoencoder):
        metrics |= evaluate_gaps(model, data, conditions)
        measures += gap_measures(data, conditions)
    if conditions.split == "test":
        others, called = evaluate_shifted(model, data, conditions)
        metrics |= others
        measures += called
    if isinstance(model, SequenceToSequence) and isinstance(data, ParallelDataModule):
        metrics |= evaluate_translation(model, data, conditions)
        measures[:] = [translation_measure(model, data), *measures]
    return result


def _diverged(metrics: Mapping[str, float], conditions: Conditions) -> bool:
    """Whether the loss is NaN or infinite: nothing else can be measured then, and some of it could not be computed."""
    return not math.isfinite(metrics.get(conditions.key("loss"), 0.0))


@contextmanager
def _timed(seconds: MutableMapping[str, float], what: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[what] = time.perf_counter() - started


def has_likelihood(model: Model) -> TypeGuard[EvidenceModel]:
    """Whether importance sampling can estimate its likelihood."""
    return isinstance(model, EvidenceModel) and model.bounded
