"""The bound on a whole split, and the importance-sampled log-likelihood.

Shapes: B batch, k samples in a chunk. Units: nats, bits per dimension where a key says so.
"""

import math

import torch

from attelbo.data import DataSpec, ResidentDataModule
from attelbo.experiments.evaluation.conditions import Conditions
from attelbo.experiments.evaluation.splits import mean_over_rows
from attelbo.experiments.terminal import tracked
from attelbo.latent import estimate_log_likelihood
from attelbo.metrics import Measure
from attelbo.models import EvidenceModel, Model

_PIXELS_ON_CPU = 2**19
"""2 MB of float32."""
_PIXELS_ON_GPU = 2**26


@torch.inference_mode()
def evaluate_bound(model: Model, data: ResidentDataModule, conditions: Conditions) -> dict[str, float]:
    """The model's own metrics over every row of a split, as in validation; exact means whatever the batches."""
    for i, rows in enumerate(conditions.all_rows(data)):
        conditions.seed_noise("evaluation", i)
        model.evaluation_step(data.materialize(rows, conditions.split))
    return {conditions.key(name): float(value) for name, value in model.evaluation_results().items()}


@torch.inference_mode()
def evaluate_shifted(
    model: Model, data: ResidentDataModule, conditions: Conditions
) -> tuple[dict[str, float], list[Measure]]:
    """The first of the model's own metrics over test rows of other distributions (``data.shifted``), by their names."""
    metrics, measures, batch_size = {}, [], conditions.settings.batch_size
    for name, rows in data.shifted.items():
        for i, index in enumerate(torch.arange(len(rows), device=conditions.device).split(batch_size)):
            conditions.seed_noise("evaluation", i)
            model.evaluation_step(rows.materialize(index))
        measure, results = model.measures[0], model.evaluation_results()
        key = f"{measure.key}_{name}"
        metrics[f"test/{key}"] = float(results[measure.key])
        measures.append(measure._replace(key=key, label=f"{measure.label}, {name}"))
    return metrics, measures


@torch.inference_mode()
def evaluate_likelihood(model: EvidenceModel, data: ResidentDataModule, conditions: Conditions) -> dict[str, float]:
    """The negative log-likelihood of ``n_images`` rows spread over a split (None: all), from exactly ``n_samples``
    importance samples each; ``chunk`` bounds the memory and changes nothing but the noise.

    The effective samples are the harmonic mean over rows: with n of them, log p(x) of a row is underestimated by some
    1 / (2 n), so that the bias of the NLL follows from it, and a few rows that rest on a single sample are not hidden
    by others where all count. Samples of equal weight are as one, and nothing is said of how many count.
    """
    settings, n_samples = conditions.settings, conditions.settings.n_samples
    chunk = settings.chunk or suitable_chunk(settings.batch_size * decoded_size(data.spec), conditions.device)
    values, effective = [], []
    for i, rows in enumerate(tracked(conditions.rows(data), f"log-likelihood, {n_samples} samples")):
        conditions.seed_noise("likelihood", i)
        batch = data.materialize(rows, conditions.split)
        log_weights = model.weight_sampler_of(batch)
        estimate = estimate_log_likelihood(log_weights, n_samples, chunk)
        values.append(estimate.log_likelihood)
        effective.append(estimate.effective_sample_size)
    found = mean_over_rows(conditions.key("nll"), -torch.cat(values))
    if not model.equal_weights:
        found[conditions.key("effective_sample_size")] = 1 / float(torch.cat(effective).reciprocal().mean())
    return found


def likelihood_measures(
    model: EvidenceModel, data: ResidentDataModule, conditions: Conditions
) -> tuple[Measure, Measure]:
    """The measures of ``evaluate_likelihood``: the likelihood, and the effective samples."""
    row = data.spec.row
    article = "an" if row == "image" else "a"
    note = f"{conditions.n_rows(data):,} {row}s"
    if not model.equal_weights:
        note = f"{conditions.settings.n_samples:,} importance samples, {note}"
    elif model.n_latent:
        note = f"at most: the ELBO, since q(z|x) is a point; {note}"
    if model.given:
        note = f"given {model.given}; {note}"
    return (
        Measure("nll", "NLL", "nats", note=note, better="less"),
        Measure(
            "effective_sample_size",
            "effective samples",
            f"carry the weight of all those of {article} {row}",
            digits=1,
            note=f"harmonic mean over {row}s",
        ),
    )


def decoded_size(spec: DataSpec) -> int:
    """Numbers that are decoded for one x: its pixels; for a text the logits of all tokens at each place."""
    return math.prod(spec.shape) * (spec.n_tokens or 1)


def suitable_chunk(pixels: int, device: torch.device) -> int:
    """Samples at a time, given the pixels of one sample of each image of the batch: on a CPU as many as keep the
    decoder's output in its cache (benchmarks/NOTES.md), on a GPU as many as make a launch worthwhile.
    """
    return max(1, (_PIXELS_ON_CPU if device.type == "cpu" else _PIXELS_ON_GPU) // pixels)
