"""What a run prints at its end."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from attelbo.experiments.rundir import RunDirectory, config_hash

FILES = {
    "samples": "media/samples.png",
    "reconstructions": "media/reconstructions.png",
    "latent map": "media/latent_map.png",
    "report": "report.html",
}


WIDTH = 110
"""A line of the table is not broken, however narrow the terminal."""


class Row(NamedTuple):
    """A number in the table of a result."""

    label: str
    key: str
    unit: str
    digits: int


IN_EVERY_RUN = (
    Row("effective samples", "effective_sample_size", "carry the weight of all those of an image", 1),
    Row("mutual information", "mutual_information", "nats, I(x; z)", 2),
    Row("aggregate KL", "aggregate_kl", "nats, KL(q(z) || p(z))", 2),
    Row("accuracy", "accuracy", "of the labels", 4),
)
WHERE_ASKED_FOR = (
    Row("MIG", "mig", "mutual information gap, 0..1", 3),
    Row("SAP", "sap", "separated attribute predictability, 0..1", 3),
    Row("modularity", "modularity", "0..1", 3),
    Row("FactorVAE score", "factor_vae_score", "0..1", 3),
    Row("beta-VAE score", "beta_vae_score", "0..1", 3),
    Row("DCI", "dci_disentanglement", "disentanglement, 0..1", 3),
    Row("", "dci_completeness", "completeness, 0..1", 3),
    Row("", "dci_informativeness", "informativeness, accuracy", 3),
    Row("PSNR", "psnr", "dB, reconstructions", 2),
    Row("SSIM", "ssim", "reconstructions", 4),
    Row("MS-SSIM", "ms_ssim", "reconstructions", 4),
    Row("Frechet distance", "classifier_frechet_distance", "samples, in the features of a classifier", 3),
    Row("", "classifier_train_frechet_distance", "as many training images, for comparison", 3),
    Row("kernel distance", "classifier_kernel_distance", "samples, in the features of a classifier", 5),
    Row("", "classifier_train_kernel_distance", "as many training images, for comparison", 5),
    Row("FID", "fid", "samples, in Inception features", 2),
)


def print_result(result: Mapping[str, Any], run_dir: Path, split: str = "test") -> None:
    """The headline numbers of a result, with their units, and where the pictures are."""
    metrics, seconds = result["metrics"], result.get("seconds", {})
    table = Table(title=f"{run_dir}: {split}", title_justify="left", show_header=False, box=None)
    table.add_column()
    table.add_column(justify="right")
    table.add_column()

    def row(label: str, key: str, unit: str, digits: int = 2) -> None:
        if f"{split}/{key}" in metrics:
            table.add_row(label, f"{metrics[f'{split}/{key}']:.{digits}f}", unit)

    row("ELBO", "elbo", "nats")
    if f"{split}/elbo" not in metrics:
        row("loss", "loss", "nats, no bound: there is neither ELBO nor NLL")
    if f"{split}/nll" in metrics:
        error = metrics[f"{split}/nll_std_error"]
        table.add_row(
            "NLL",
            f"{metrics[f'{split}/nll']:.2f}",
            f"nats ±{error:.2f} ({result['nll_samples']:,} importance samples, {result['nll_images']:,} images)",
        )
    row("reconstruction", "reconstruction", "nats")
    row("KL", "kl", "nats")
    row("bits/dim", "bits_per_dim", "bits, from the ELBO", 4)
    row("accuracy", "accuracy", "of the labels, by q(y|x)", 4)
    row("active units", "active_units", "of the latent dimensions", 0)
    row("perplexity", "perplexity", "codes, if all were used equally")
    row("codes in use", "code_usage", "of all codes", 3)
    for label, key, unit, digits in (*IN_EVERY_RUN, *WHERE_ASKED_FOR):
        row(label, key, unit, digits)
    if chosen := result.get("monitor"):
        table.add_row("weights", result["checkpoint"], f"checkpoint, {chosen}")
    times = ", ".join(f"{what} {value:.1f} s" for what, value in seconds.items())
    if times:
        table.add_row("time", f"{sum(seconds.values()):.1f}", f"s ({times})")
    console = Console(soft_wrap=True, force_jupyter=False)
    console.width = max(console.width, WIDTH)
    console.print(table)
    for label, name in FILES.items():
        if (run_dir / name).exists():
            console.print(f"{label:>16}  {run_dir / name}", highlight=False)


# -- several runs together -----------------------------------------------------------------------------


def print_replicas(runs: Sequence[tuple[Mapping[str, Any], RunDirectory]], sweep: Path) -> None:
    """The metrics of each configuration as the mean over its seeds, with a 95 % interval, and where the runs are.

    Args:
        runs: configuration and directory of each.
        sweep: the directory of them all.
    """
    cells: dict[str, list[tuple[Mapping[str, Any], RunDirectory]]] = {}
    for config, run in runs:
        without_seed = {**config, "seed": None, "data": {**config["data"], "seed": None}}
        cells.setdefault(config_hash(without_seed), []).append((config, run))
    firsts = [members[0][0] for members in cells.values()]
    results = [[result for _, run in members if (result := _result(run))] for members in cells.values()]
    table = Table(title=f"{sweep}: mean ± 95 % interval over seeds", title_justify="left", box=None)
    table.add_column()
    for first, of_cell in zip(firsts, results, strict=True):
        table.add_column(" ".join([*_differences(first, firsts), f"n={len(of_cell)}"]), justify="right")
    metrics = [[result["metrics"] for result in of_cell] for of_cell in results]
    names = dict.fromkeys(name for of_cell in metrics for one in of_cell for name in one)
    for name in names:
        if not name.endswith("_std_error"):  # of one run's images, not of runs
            table.add_row(name, *(interval([one[name] for one in of_cell if name in one]) for of_cell in metrics))
    console = Console(soft_wrap=True, force_jupyter=False)
    if names:
        console.print(table)
    for config, run in runs:
        state = run.status()["state"]
        why = f": {run.status().get('error', '').strip().rpartition(chr(10))[2]}" if state == "failed" else ""
        console.print(f"{run.path}  seed {config['seed']}  {state}{why}", highlight=False, markup=False)


def _result(run: RunDirectory) -> dict[str, Any] | None:
    return run.read("result.json") if run.status()["state"] == "done" else None


def interval(values: Sequence[float]) -> str:
    """Mean and half the width of the 95 % interval, by Student's t with n - 1 degrees of freedom."""
    if len(values) < 2:
        return f"{values[0]:.2f}" if values else "-"
    from scipy.special import stdtrit

    half = stdtrit(len(values) - 1, 0.975) * statistics.stdev(values) / math.sqrt(len(values))
    digits = max(2, 1 - math.floor(math.log10(half))) if 0 < half < 1 else 2
    return f"{statistics.mean(values):.{digits}f} ± {half:.{digits}f}"


def _differences(config: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys, with their values, in which a configuration differs from some of the others; seeds left out."""
    flat = [_flatten(other) for other in others]
    own = _flatten(config)
    return [f"{key}={value}" for key, value in own.items() if any(other.get(key) != value for other in flat)]


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        elif key != "seed":
            flat[f"{prefix}{key}"] = value
    return flat
