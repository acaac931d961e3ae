"""How good a trained model is: the bound on a whole split, and its importance-sampled log-likelihood.

Shapes: B batch, k samples in a chunk. Units: nats, bits per dimension where a key says so.
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from rich.progress import track
from torch import Tensor

from attelbo.data import ImageDataModule
from attelbo.errors import ConfigError
from attelbo.experiments.settings import Evaluation
from attelbo.latent import estimate_log_likelihood
from attelbo.models import LatentVariableModel, Model, load_run, read_config
from attelbo.seeding import derive_seed
from attelbo.training import seed_default_generator
from attelbo.training.threads import use_threads

SplitName = Literal["validation", "test"]

_PIXELS_ON_CPU = 2**19
"""2 MB of float32."""
_PIXELS_ON_GPU = 2**26


@torch.inference_mode()
def evaluate_bound(
    model: Model, data: ImageDataModule, split: SplitName, batch_size: int, seed: int, device: torch.device
) -> dict[str, float]:
    """The model's own metrics over every row of a split, as in validation; exact means whatever the batches."""
    for i, rows in enumerate(torch.arange(data.n_rows(split), device=device).split(batch_size)):
        seed_default_generator(derive_seed(seed, "evaluation", i), device)
        model.evaluation_step(data.materialize(rows, split))
    return {f"{split_key(split)}/{name}": float(value) for name, value in model.evaluation_results().items()}


@torch.inference_mode()
def evaluate_likelihood(
    model: LatentVariableModel,
    data: ImageDataModule,
    split: SplitName,
    settings: Evaluation,
    seed: int,
    device: torch.device,
) -> dict[str, float]:
    """The negative log-likelihood of the first ``n_images`` rows of a split (None: all), from exactly
    ``n_samples`` importance samples each; ``chunk`` bounds the memory and changes nothing else but the noise.

    ``nll_std_error`` is that of the mean over images: what another draw of images would change.
    """
    n_samples, batches = settings.n_samples, _rows(data, split, settings, device)
    chunk = settings.chunk or suitable_chunk(settings.batch_size * math.prod(data.spec.shape), device)
    values, effective = [], []
    for i, rows in enumerate(track(batches, f"log-likelihood, {n_samples} samples", transient=True)):
        seed_default_generator(derive_seed(seed, "likelihood", i), device)
        batch = data.materialize(rows, split)
        log_weights = model.weight_sampler(batch.x, batch.y)
        estimate = estimate_log_likelihood(log_weights, n_samples, chunk)
        values.append(estimate.log_likelihood)
        effective.append(estimate.effective_sample_size)
    nll = -torch.cat(values)
    key = split_key(split)
    return {
        f"{key}/nll": float(nll.mean()),
        f"{key}/nll_std_error": float(nll.std() / len(nll) ** 0.5) if len(nll) > 1 else float("nan"),
        f"{key}/effective_sample_size": float(torch.cat(effective).mean()),
    }


def suitable_chunk(pixels: int, device: torch.device) -> int:
    """Samples at a time, where one sample of each image of the batch has so many pixels: on a CPU as many as keep
    the decoder's output in its cache (benchmarks/NOTES.md), on a GPU as many as make a launch worth its while.
    """
    return max(1, (_PIXELS_ON_CPU if device.type == "cpu" else _PIXELS_ON_GPU) // pixels)


def n_evaluated(data: ImageDataModule, split: SplitName, settings: Evaluation) -> int:
    """The number of images whose likelihood is measured."""
    return min(settings.n_images or data.n_rows(split), data.n_rows(split))


def _rows(data: ImageDataModule, split: SplitName, settings: Evaluation, device: torch.device) -> Sequence[Tensor]:
    return torch.arange(n_evaluated(data, split, settings), device=device).split(settings.batch_size)


def split_key(split: SplitName) -> str:
    """The split's name in metric keys."""
    return "val" if split == "validation" else split


def measure(
    model: Model, data: ImageDataModule, split: SplitName, settings: Evaluation, seed: int, device: torch.device
) -> dict[str, Any]:
    """Bound and likelihood in the shape of ``result.json``."""
    started = time.perf_counter()
    model = model.to(device).eval()
    metrics = evaluate_bound(model, data, split, settings.batch_size, seed, device)
    result: dict[str, Any] = {"metrics": metrics}
    if isinstance(model, LatentVariableModel) and model.bounded:
        metrics |= evaluate_likelihood(model, data, split, settings, seed, device)
        result |= {"nll_samples": settings.n_samples, "nll_images": n_evaluated(data, split, settings)}
    result["seconds"] = {"evaluate": time.perf_counter() - started}
    return result


def evaluate(
    run: str,
    split: SplitName,
    n_samples: int,
    n_images: int | None,
    batch_size: int,
    chunk: int | None,
    checkpoint: Literal["best", "last"],
    seed: int,
    accelerator: Literal["auto", "cpu", "gpu"],
    data_dir: str | None = None,
) -> None:
    """``attelbo evaluate``: measure a finished run again and print the table; writes ``evaluation-<split>.json``.

    Args:
        run: the run directory, or a folder whose newest run is meant.
        split: validation or test.
        n_samples: importance samples for each image.
        n_images: so many of the split's images; all if None.
        batch_size: images at a time.
        chunk: samples of each at a time; as many as suit the device if None.
        checkpoint: whose weights.
        seed: of the noise.
        accelerator: where.
        data_dir: where the data are now, if not where they were.

    Raises:
        UserError: a number is out of range, not a run directory, or it has no checkpoint.
    """
    from attelbo.experiments.rundir import RunDirectory
    from attelbo.experiments.tables import print_result

    try:
        settings = Evaluation(n_samples, n_images, batch_size, chunk, checkpoint)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    directory = RunDirectory.find(Path(run))
    model, data = load_run(directory.path, checkpoint=checkpoint, data_dir=data_dir)
    data.prepare_data()
    data.setup()
    use_threads(read_config(directory.path)["trainer"]["threads"])
    result = measure(model, data, split, settings, seed, pick_device(accelerator))
    directory.write(f"evaluation-{split}.json", result | {"checkpoint": checkpoint, "seed": seed})
    print_result(result, directory.path, split_key(split))


def pick_device(accelerator: Literal["auto", "cpu", "gpu"]) -> torch.device:
    """The first GPU, or the CPU.

    Raises:
        ConfigError: a GPU was asked for and there is none.
    """
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise ConfigError("accelerator=gpu: this machine has no GPU that torch can use; accelerator=auto takes the CPU")
    return torch.device("cuda", 0) if accelerator != "cpu" and torch.cuda.is_available() else torch.device("cpu")
