"""``attelbo reconstruct | interpolate | traverse``: pictures from a trained model.

Each writes a PNG grid into ``media/`` of the run, interpolate and traverse a GIF beside it; for models of texts the
first two write texts (``experiments.writing``).

Shapes: n images (n, C, H, W), or texts (n, T), D latent dimensions of all layers, S steps of a path.
"""

from pathlib import Path
from typing import Literal, Self

import torch
from torch import Tensor

from attelbo.checks import check_at_least
from attelbo.data import ImageDataModule
from attelbo.data.batch import Batch
from attelbo.data.loader import spread_rows
from attelbo.errors import ConfigError, UserError
from attelbo.experiments.evaluation import SplitName
from attelbo.experiments.evaluation.splits import evaluated
from attelbo.experiments.trained import Accelerator, Trained, Which, marks, print_written, refuse
from attelbo.experiments.vectors import write_pairs
from attelbo.experiments.writing import typed_rows, write_paths, write_reconstructions
from attelbo.latent.spaces import Codes, Sphere
from attelbo.models import LatentVariableModel, TextVAE
from attelbo.models.traversal import traversals
from attelbo.seeding import derive_seed
from attelbo.training.callbacks.pictures import encode
from attelbo.training.media import Picture, image_grid, pair_grid, row_grid, save_gif, save_png
from attelbo.training.names import named


class TrainedOnRows(Trained):
    """A model with latent variables of images, of texts or of vectors."""

    model: LatentVariableModel

    @classmethod
    def of(cls, run: str, checkpoint: Which, accelerator: Accelerator, data_dir: str | None = None) -> Self:
        """Load a run; no data file is read yet.

        Raises:
            UserError: not a run directory, no checkpoint in it, or not such a model.
        """
        trained = super().of(run, checkpoint, accelerator, data_dir)
        of_images = isinstance(trained.model, LatentVariableModel) and isinstance(trained.data, ImageDataModule)
        if not (of_images or isinstance(trained.model, TextVAE)):
            raise UserError(f"{trained.described}: no images to draw")
        return trained

    @property
    def writes(self) -> bool:
        """Whether its rows are texts."""
        return isinstance(self.model, TextVAE)

    def refuse_vectors(self) -> None:
        """Raise UserError where the model is one of vectors."""
        if self.data.spec.row == "row":
            raise UserError(f"{self.described}: no images to draw; sample, reconstruct and embed write its rows as CSV")

    def n_rows(self, split: SplitName) -> int:
        """Rows of a split."""
        return self.data.n_rows(evaluated(split))

    def rows(self, split: SplitName, index: Tensor) -> Batch:
        """These rows of a split.

        Raises:
            ConfigError: there are fewer.
        """
        n = self.n_rows(split)
        if len(index) == 0 or int(index.max()) >= n or int(index.min()) < 0:
            rows = f"{n:,} {self.data.spec.row}s, rows 0 to {n - 1:,}"
            raise ConfigError(f"{split} has {rows}; row {int(index.max())} was asked for")
        return self.data.materialize(index.to(self.device), evaluated(split))

    def spread(self, split: SplitName, n: int) -> Batch:
        """``n`` rows spread evenly over a split, which may be sorted by class; all if there are fewer."""
        return self.rows(split, spread_rows(n, self.n_rows(split)))

    def pairs(self, split: SplitName, n: int, seed: int) -> Batch:
        """``n`` rows of a split followed by ``n`` others, in an order that depends on the seed alone.

        Raises:
            ConfigError: there are fewer.
        """
        size = self.n_rows(split)
        if size < 2 * n:
            raise ConfigError(f"n: {n} pairs take {2 * n} {self.data.spec.row}s, {split} has {size}")
        order = torch.randperm(size, generator=torch.Generator().manual_seed(derive_seed(seed, "interpolate")))
        return self.rows(split, order[: 2 * n])

    def typed(self, **ends: str | None) -> Batch | None:
        """The two ends of a path, by name, as rows; None where neither was typed.

        Raises:
            ConfigError: one without the other, or a model that reads no texts.
            UserError: a text that the model cannot read.
        """
        if not self.writes:
            refuse(f"{self.described}: it reads no texts", **ends)
        texts = [text for text in ends.values() if text is not None]
        if not texts:
            return None
        if len(texts) < len(ends):
            raise ConfigError(f"{' and '.join(ends)}: a path has both, one was given")
        return Batch(typed_rows(self, texts), None, torch.arange(len(texts), device=self.device))

    def encode(self, batch: Batch) -> Tensor:
        """The posterior means of a batch of any size, (n, D).

        Raises:
            UserError: some are NaN or infinite.
        """
        means = encode(self.model, batch)
        if not means.isfinite().all():
            raise UserError(f"{self.described}: some of its posterior means are not finite; its training diverged")
        return means


def reconstruct(
    run: str,
    n: int,
    split: SplitName,
    output: str | None,
    accelerator: Accelerator,
    checkpoint: Which,
    data_dir: str | None = None,
) -> None:
    """Write images of a split, spread evenly over it, with their reconstructions E[x | E_q[z]] below them; for texts
    the likeliest tokens at E_q[z], decoded greedily; for vectors both as CSV, in the units of the data.

    Args:
        run: the run directory, or a folder, for its newest run.
        n: how many images, texts or vectors; all if there are fewer.
        split: train, validation or test.
        output: the file; by default ``media/reconstructions-<split>-n<n>.png`` or ``.txt`` in the run directory.
        accelerator: where to compute.
        checkpoint: which weights.
        data_dir: where the data are now, if not where they were.

    Raises:
        UserError: not a run directory, or it has no checkpoint.
        ConfigError: n is below 1.
    """
    check_at_least(1, ConfigError, n=n)
    trained = TrainedOnRows.of(run, checkpoint, accelerator, data_dir).with_data()
    batch = trained.spread(split, n)
    if trained.writes:
        write_reconstructions(trained, batch.x, output, f"reconstructions-{split}-n{n}.txt")
        return
    made = trained.model.reconstruct(batch.x, batch.y)
    if trained.data.spec.row == "row":
        write_pairs(trained, batch.index, batch.x, made, output, f"reconstructions-{split}-n{n}.csv")
        return
    picture = pair_grid(trained.data.shown(batch.x), trained.data.shown(made))
    name = f"reconstructions-{split}-n{n}.png"
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
    start: str | None = None,
    end: str | None = None,
) -> None:
    """Decode the points on a path from the posterior mean of one image to that of another: a row of a grid for each
    pair, and a GIF of all; for texts, the texts between the two.

    Args:
        run: the run directory, or a folder, for its newest run.
        n: pairs of the split.
        steps: S, images or texts of a path, its ends included.
        path: ``linear``, ``spherical`` (Shoemake 1985, "slerp"), or ``auto``: spherical where latents are unit vectors.
        split: train, validation or test.
        seed: which images or texts.
        output: the file; by default ``media/interpolations-<split>-seed<seed>-n<n>-steps<steps>[-<path>].png`` or
            ``.txt``, of typed texts ``media/interpolation-typed-...txt``, in the run directory.
        accelerator: where to compute.
        checkpoint: which weights.
        data_dir: where the data are now, if not where they were.
        start: a text to go from, instead of those of the split; no data are read.
        end: the text to go to.

    Raises:
        UserError: not a run directory, no checkpoint in it, or a typed text that the model cannot read.
        ConfigError: n below 1, fewer than two steps, fewer images or texts than are needed, one end without the other,
            or typed ends for a model of images.
    """
    check_at_least(1, ConfigError, n=n)
    check_at_least(2, ConfigError, steps=steps)
    trained = TrainedOnRows.of(run, checkpoint, accelerator, data_dir)
    typed = trained.typed(start=start, end=end)
    trained.refuse_vectors()
    batch = trained.with_data().pairs(split, n, seed) if typed is None else typed
    which = f"interpolations-{split}{marks(seed=seed, n=n)}" if typed is None else "interpolation-typed"
    name = f"{which}{marks(start=start, end=end, steps=steps)}{'' if path == 'auto' else f'-{path}'}"
    first, last = trained.encode(batch).chunk(2)
    round_trip = path == "spherical" or (path == "auto" and isinstance(trained.model.space, Sphere))
    between = slerp if round_trip else torch.lerp
    positions = torch.linspace(0, 1, steps, device=trained.device)
    z = torch.stack([between(first, last, position) for position in positions], 1)  # (n, S, D)
    if trained.writes:
        write_paths(trained, batch.x, z, output, f"{name}.txt")
        return
    labels = None if batch.y is None else batch.y[:n].repeat_interleave(steps, 0)
    images = trained.data.shown(trained.model.generate(z.flatten(0, 1), labels)).unflatten(0, (n, steps))
    file = trained.path(output, f"{name}.png")
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
    """Vary one latent at a time around the encoding of an image: a row of a grid for each, with its name, and a GIF of
    all.

    The latents that vary most over the split are shown, the most varying first. A real one goes from ``limit`` standard
    deviations below its mean over the split to as many above; a categorical one goes through its classes.

    Args:
        run: the run directory, or a folder, for its newest run.
        row: of the split; which image.
        n: latents shown, at most.
        steps: S, values of each.
        limit: standard deviations of the posterior means over the split.
        split: train, validation or test.
        output: the PNG file; by default ``media/traversals-<split>-row<row>-n<n>-steps<steps>-limit<limit>.png`` in the
            run directory.
        accelerator: where to compute.
        checkpoint: which weights.
        data_dir: where the data are now, if not where they were.

    Raises:
        UserError: not a run directory, no checkpoint in it, or its latents are codes, which have no order.
        ConfigError: a number out of range.
    """
    check_at_least(1, ConfigError, n=n)
    check_at_least(2, ConfigError, steps=steps)
    check_at_least(0, ConfigError, row=row)
    if not 0 < limit < float("inf"):
        raise ConfigError(f"limit must be positive and finite, got {limit}")
    trained = TrainedOnRows.of(run, checkpoint, accelerator, data_dir)
    if trained.writes:
        raise UserError(f"{trained.described}: no images to draw; interpolate writes the texts between two")
    trained.refuse_vectors()
    space = trained.model.space
    if isinstance(space, Codes):
        raise UserError(
            f"the latents of {trained.run_dir} are {space}: there is nothing to move along; interpolate does"
        )
    batch = trained.with_data().rows(split, torch.tensor([row]))
    means = trained.encode(trained.spread(split, 2000))
    moved = traversals(trained.model, batch.x, batch.y, means, steps, limit, n)
    paths = [trained.data.shown(images) for images in moved.values()]
    name = f"traversals-{split}{marks(row=row, n=n, steps=steps, limit=limit)}.png"
    file = trained.path(output, name)
    _write(named(row_grid(paths), list(moved)), file, f"{len(paths)} latents of row {row}, each in its row")
    width = max(map(len, paths))
    frames = [torch.stack([path[t % len(path)] for path in paths]) for t in range(width)]
    _write_gif([image_grid(frame) for frame in _there_and_back(frames)], file)


def _there_and_back(frames: list[Tensor] | tuple[Tensor, ...]) -> list[Tensor]:
    return [*frames, *frames[-2:0:-1]]


def _write(picture: Picture, path: Path, what: str) -> None:
    print_written(what, save_png(picture, path))


def _write_gif(frames: list[Picture], beside: Path) -> None:
    print_written("moving", save_gif(frames, beside.with_suffix(".gif")))
