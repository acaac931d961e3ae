"""``attelbo sample | reconstruct | interpolate | traverse``: pictures from a trained model.

Each writes one PNG grid into ``media/`` of the run, and those that move a GIF beside it.

Shapes: n images (n, C, H, W), D latent dimensions of all layers, S steps of a path.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from torch import Tensor

from attelbo.data import ResidentDataModule
from attelbo.data.batch import Batch, Split
from attelbo.errors import ConfigError, UserError
from attelbo.experiments.evaluation import SplitName, pick_device
from attelbo.experiments.rundir import RunDirectory
from attelbo.experiments.traversal import axes_of, space_of
from attelbo.latent.spaces import Codes, Sphere
from attelbo.models import LatentVariableModel, load_run
from attelbo.seeding import derive_seed
from attelbo.training import seed_default_generator
from attelbo.training.media import Picture, image_grid, pair_grid, save_gif, save_png

Accelerator = Literal["auto", "cpu", "gpu"]
Which = Literal["best", "last"]

CHUNK = 500
"""Rows that are encoded at a time."""


@dataclass(frozen=True)
class Trained:
    """A trained model of images, and where pictures of it go."""

    run_dir: Path
    model: LatentVariableModel
    data: ResidentDataModule
    device: torch.device

    @classmethod
    def of(cls, run: str, checkpoint: Which, accelerator: Accelerator, data_dir: str | None = None) -> "Trained":
        """Load a run; no data file is read yet.

        Raises:
            UserError: not a run directory, no checkpoint in it, no model of latent variables, or not of images.
        """
        device = pick_device(accelerator)
        run_dir = RunDirectory.find(Path(run)).path
        model, data = load_run(run_dir, checkpoint=checkpoint, data_dir=data_dir)
        if not isinstance(model, LatentVariableModel) or len(data.spec.shape) != 3:
            raise UserError(f"{run_dir} is the run of a {type(model).__name__} on {data.spec.name}: no images to draw")
        return cls(run_dir, model.to(device), data, device)

    def with_data(self) -> "Trained":
        """Read the data."""
        self.data.prepare_data()
        self.data.setup()
        return self

    def rows(self, split: Split, index: Tensor) -> Batch:
        """These rows of a split.

        Raises:
            ConfigError: there are not so many.
        """
        n = self.data.n_rows(split)
        if len(index) == 0 or int(index.max()) >= n or int(index.min()) < 0:
            raise ConfigError(f"{split} has {n:,} images, rows 0 to {n - 1:,}; row {int(index.max())} was asked for")
        return self.data.materialize(index.to(self.device), split)

    def spread(self, split: Split, n: int) -> Batch:
        """``n`` rows spread evenly over a split, which may be sorted by class; all if there are fewer."""
        size = self.data.n_rows(split)
        n = min(n, size)
        return self.rows(split, torch.arange(n) * size // n)

    def encode(self, batch: Batch) -> Tensor:
        """The posterior means of a batch of any size, (n, D)."""
        labels = [None] * len(batch.x) if batch.y is None else batch.y.split(CHUNK)
        return torch.cat([self.model.encode(x, y) for x, y in zip(batch.x.split(CHUNK), labels, strict=False)])

    def seed(self, seed: int, purpose: str) -> None:
        """What is drawn next depends on these alone."""
        seed_default_generator(derive_seed(seed, purpose), self.device)

    def path(self, output: str | None, name: str) -> Path:
        """The file that was asked for, or ``media/<name>.png`` of the run."""
        return Path(output) if output else self.run_dir / "media" / f"{name}.png"


def sample(
    run: str,
    n: int,
    seed: int,
    output: str | None,
    accelerator: Accelerator,
    checkpoint: Which,
) -> None:
    """Draw n latents from the prior, decode them and write one PNG grid of E[x|z]; where a model knows labels, one
    class after the other.

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
    _at_least(1, n=n)
    trained = Trained.of(run, checkpoint, accelerator)
    trained.seed(seed, "sample")
    picture = image_grid(trained.model.sample(n))
    _write(picture, trained.path(output, f"samples-n{n}-seed{seed}"), f"{n} samples")


def reconstruct(
    run: str,
    n: int,
    split: SplitName,
    output: str | None,
    accelerator: Accelerator,
    checkpoint: Which,
    data_dir: str | None = None,
) -> None:
    """Write images of a split, spread evenly over it, with their reconstructions E[x | E_q[z]] below them.

    Args:
        run: the run directory, or a folder whose newest run is meant.
        n: how many images; all if there are fewer.
        split: validation or test.
        output: the file; by default ``media/reconstructions-<split>-n<n>.png`` in the run directory.
        accelerator: where.
        checkpoint: whose weights.
        data_dir: where the data are now, if not where they were.

    Raises:
        UserError: not a run directory, or it has no checkpoint.
        ConfigError: n is below 1.
    """
    _at_least(1, n=n)
    trained = Trained.of(run, checkpoint, accelerator, data_dir).with_data()
    batch = trained.spread(split, n)
    picture = pair_grid(batch.x, trained.model.reconstruct(batch.x, batch.y))
    name = f"reconstructions-{split}-n{n}"
    _write(picture, trained.path(output, name), f"{len(batch.x)} images with their reconstructions below them")


def interpolate(
    run: str,
    n: int,
    steps: int,
    path: Literal["auto", "linear", "spherical"],
    split: SplitName,
    seed: int,
    output: str | None,
    accelerator: Accelerator,
    checkpoint: Which,
    data_dir: str | None = None,
) -> None:
    """Go from the posterior mean of one image to that of another: a row of a grid for each pair, and a GIF of all.

    Args:
        run: the run directory, or a folder whose newest run is meant.
        n: pairs.
        steps: S, images of a path, its ends included.
        path: ``linear``, ``spherical`` (Shoemake 1985, "slerp"), or ``auto``: spherical where latents are unit vectors.
        split: validation or test.
        seed: which images.
        output: the PNG file; by default ``media/interpolations-<split>-seed<seed>.png`` in the run directory.
        accelerator: where.
        checkpoint: whose weights.
        data_dir: where the data are now, if not where they were.

    Raises:
        UserError: not a run directory, or it has no checkpoint.
        ConfigError: n below 1, fewer than two steps, or fewer images than are needed.
    """
    _at_least(1, n=n)
    _at_least(2, steps=steps)
    trained = Trained.of(run, checkpoint, accelerator, data_dir).with_data()
    size = trained.data.n_rows(split)
    if size < 2 * n:
        raise ConfigError(f"n: {n} pairs take {2 * n} images, {split} has {size}")
    order = torch.randperm(size, generator=torch.Generator().manual_seed(derive_seed(seed, "interpolate")))
    batch = trained.rows(split, order[: 2 * n])
    start, end = trained.encode(batch).chunk(2)
    round_trip = path == "spherical" or (path == "auto" and isinstance(space_of(trained.model), Sphere))
    between = slerp if round_trip else torch.lerp
    positions = torch.linspace(0, 1, steps, device=trained.device)
    z = torch.stack([between(start, end, position) for position in positions], 1)  # (n, S, D)
    labels = None if batch.y is None else batch.y[:n].repeat_interleave(steps, 0)
    images = trained.model.generate(z.flatten(0, 1), labels).unflatten(0, (n, steps))
    file = trained.path(output, f"interpolations-{split}-seed{seed}")
    _write(image_grid(images.flatten(0, 1), columns=steps), file, f"{n} paths of {steps} images")
    _write_gif([image_grid(frame) for frame in _there_and_back(images.unbind(1))], file)


def slerp(start: Tensor, end: Tensor, position: Tensor) -> Tensor:
    """The great circle from ``start`` (n, D) to ``end`` at ``position`` in [0, 1]; lengths lie between theirs."""
    lengths = [side.norm(dim=-1, keepdim=True).clamp(min=1e-12) for side in (start, end)]
    a, b = start / lengths[0], end / lengths[1]
    angle = (a * b).sum(-1, keepdim=True).clamp(-1, 1).acos()
    weights = torch.sin(angle * (1 - position)), torch.sin(angle * position)
    arc = (weights[0] * a + weights[1] * b) / torch.sin(angle)
    straight = torch.lerp(a, b, position)  # between vectors that nearly agree
    direction = torch.where(torch.sin(angle) > 1e-4, arc, straight)
    return direction * torch.lerp(lengths[0], lengths[1], position)


def traverse(
    run: str,
    row: int,
    n: int,
    steps: int,
    limit: float,
    split: SplitName,
    output: str | None,
    accelerator: Accelerator,
    checkpoint: Which,
    data_dir: str | None = None,
) -> None:
    """Vary one latent at a time around the encoding of an image: a row of a grid for each, and a GIF of all.

    Shown are the latents that vary most over the split, the most varying first. A real one goes from ``limit``
    standard deviations below its mean over the split to as many above; a choice goes through its classes.

    Args:
        run: the run directory, or a folder whose newest run is meant.
        row: of the split; which image.
        n: latents shown, at most.
        steps: S, values of each.
        limit: standard deviations of the posterior means over the split.
        split: validation or test.
        output: the PNG file; by default ``media/traversals-<split>-row<row>.png`` in the run directory.
        accelerator: where.
        checkpoint: whose weights.
        data_dir: where the data are now, if not where they were.

    Raises:
        UserError: not a run directory, no checkpoint in it, or its latents are codes, which have no order.
        ConfigError: a number out of range.
    """
    _at_least(1, n=n)
    _at_least(2, steps=steps)
    _at_least(0, row=row)
    if not 0 < limit < float("inf"):
        raise ConfigError(f"limit must be positive and finite, got {limit}")
    trained = Trained.of(run, checkpoint, accelerator, data_dir).with_data()
    space = space_of(trained.model)
    if isinstance(space, Codes):
        raise UserError(
            f"the latents of {trained.run_dir} are {space}: there is nothing to move along; interpolate does"
        )
    batch = trained.rows(split, torch.tensor([row]))
    x, y = batch.x, batch.y
    base = trained.model.encode(x, y)[0]
    means = trained.encode(trained.spread(split, 2000))
    axes = axes_of(space, base, means, steps, limit)[:n]
    blank = x.new_full(x.shape[1:], 0.25)
    paths = [trained.model.generate(z, None if y is None else y.expand(len(z), *y.shape[1:])) for z in axes]
    width = max(map(len, paths))
    rows = [torch.cat([path, blank.expand(width - len(path), *blank.shape)]) for path in paths]
    file = trained.path(output, f"traversals-{split}-row{row}")
    _write(image_grid(torch.cat(rows), columns=width), file, f"{len(paths)} latents of row {row}, each in its row")
    frames = [torch.stack([path[t % len(path)] for path in paths]) for t in range(width)]
    _write_gif([image_grid(frame) for frame in _there_and_back(frames)], file)


def _there_and_back(frames: list[Tensor] | tuple[Tensor, ...]) -> list[Tensor]:
    return [*frames, *frames[-2:0:-1]]


def _write(picture: Picture, path: Path, what: str) -> None:
    tell(what, save_png(picture, path))


def _write_gif(frames: list[Picture], beside: Path) -> None:
    tell("moving", save_gif(frames, beside.with_suffix(".gif")))


def tell(what: str, path: Path) -> None:
    """Say what was written where."""
    Console(soft_wrap=True, force_jupyter=False).print(f"{what}: {path}", highlight=False, markup=False)


def _at_least(least: int, **numbers: int) -> None:
    for name, number in numbers.items():
        if number < least:
            raise ConfigError(f"{name} must be at least {least}, got {number}")
