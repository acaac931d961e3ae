"""What a run prints at its end."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

FILES = {
    "samples": "media/samples.png",
    "reconstructions": "media/reconstructions.png",
    "latent map": "media/latent_map.png",
    "report": "report.html",
}


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
    row("active units", "active_units", "of the latent dimensions", 0)
    times = ", ".join(f"{what} {value:.1f} s" for what, value in seconds.items())
    if times:
        table.add_row("time", f"{sum(seconds.values()):.1f}", f"s ({times})")
    console = Console(soft_wrap=True, force_jupyter=False)
    console.print(table)
    for label, name in FILES.items():
        if (run_dir / name).exists():
            console.print(f"{label:>16}  {run_dir / name}", highlight=False)
