"""``attelbo sample``: images from a trained model's prior."""

from pathlib import Path
from typing import Literal

from rich.console import Console

from attelbo.errors import ConfigError
from attelbo.experiments.evaluation import pick_device
from attelbo.experiments.rundir import RunDirectory
from attelbo.models import LatentVariableModel
from attelbo.seeding import derive_seed
from attelbo.training import seed_default_generator
from attelbo.training.media import image_grid, save_png


def sample(
    run: str,
    n: int,
    seed: int,
    output: str | None,
    accelerator: Literal["auto", "cpu", "gpu"],
    checkpoint: Literal["best", "last"],
) -> None:
    """Draw n latents from the prior, decode them and write one PNG grid of E[x|z].

    Args:
        run: the run directory, or a folder whose newest run is meant.
        n: how many images.
        seed: of the draw.
        output: the file; by default ``media/samples-n<n>-seed<seed>.png`` in the run directory.
        accelerator: where.
        checkpoint: whose weights.

    Raises:
        UserError: not a run directory, or it has no checkpoint.
        ConfigError: n is below 1.
    """
    if n < 1:
        raise ConfigError(f"n must be at least 1, got {n}")
    device = pick_device(accelerator)
    run_dir = RunDirectory.find(Path(run)).path
    model = LatentVariableModel.from_run(run_dir, checkpoint).to(device)
    seed_default_generator(derive_seed(seed, "sample"), device)
    path = Path(output) if output else run_dir / "media" / f"samples-n{n}-seed{seed}.png"
    save_png(image_grid(model.sample(n)), path)
    Console(soft_wrap=True, force_jupyter=False).print(f"{n} samples: {path}")
