"""Settings of a run besides its parts: plain values, checked when they are created."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from attelbo.checks import check_at_least

Which = Literal["best", "last", "average"] | Annotated[str, Field(pattern=r"^epoch[1-9]\d*$", description="epoch<n>")]
"""Weights of a run: of the epoch that was the best in validation, of the last one, the mean of the last ones, or of the
n-th, counted from 1."""


def epoch_of(which: Which) -> int | None:
    """n of ``epoch<n>``."""
    return int(which.removeprefix("epoch")) if which.startswith("epoch") else None


Representation = Literal["published", "mean", "sample"]
"""What represents x in scores of disentanglement: the same as in ``attelbo.metrics``, here without torch."""

Stretched = Literal["places", "base"]
"""What is stretched about rotary positions where rows are longer than those that were trained on."""


@dataclass(frozen=True)
class Evaluation:
    """How a trained model is measured: the node ``evaluation`` of train.yaml, the same keys in evaluate.yaml.

    Raises:
        ValueError: a number below 1; the message begins with its name.
    """

    n_samples: int
    """Importance samples for each image."""
    n_images: int | None = None
    """So many of the split's images; all if None."""
    batch_size: int = 100
    """Images at a time."""
    chunk: int | None = None
    """Samples of each image at a time; None: as many as suit the device."""
    checkpoint: Which = "best"
    """Which weights are measured."""
    compress: bool = False
    """Code these images by bits back, decode them and count the bits."""
    disentanglement: bool | None = None
    """Scores of single latents for single factors of variation; None: where the data have factors and z has 64 numbers
    at most."""
    representation: Representation = "published"
    """What these scores read: of each what its paper has, MIG samples of z and the others its mean, or all the same."""
    quality: bool = False
    """Similarity of reconstructions, and distances of samples in the features of a classifier."""
    probe: bool = False
    """Accuracy of simple classifiers that learn labels from posterior means."""
    fid: bool = False
    """The Frechet Inception distance of samples."""
    gaps: bool = False
    """Where the bound falls short of log p(x): by annealed importance sampling, and by the best q for each image."""
    lengths: Sequence[int] | None = None
    """Rows of these lengths too, of a model of tokens."""
    stretched: Stretched | None = None
    """What is stretched about rotary positions, by the ratio of the lengths, where these rows are longer than those
    that were trained on."""

    def __post_init__(self) -> None:
        for length in self.lengths or ():
            check_at_least(1, lengths=length)
        if self.stretched is not None and not self.lengths:
            raise ValueError("stretched is of rows of other lengths: lengths=[...] names them")
        check_at_least(
            1, n_samples=self.n_samples, n_images=self.n_images, batch_size=self.batch_size, chunk=self.chunk
        )


@dataclass(frozen=True)
class Init:
    """What a run begins with: the node ``init`` of train.yaml."""

    run: str | None = None
    """The run directory whose weights it begins with, or a folder, for its newest run; None: no other run's."""
    checkpoint: Which = "best"
    """Which weights of that run."""
    only: Sequence[str] | None = None
    """Parts of the model, such as ``encoder`` or ``network.blocks.0``, that are taken; all that there are if None."""
    freeze: Sequence[str] = ()
    """Parts that are not trained."""
