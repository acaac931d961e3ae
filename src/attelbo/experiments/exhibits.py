"""Pictures and texts in ``media/`` of a run, as its report shows them."""

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

_CAPTIONS = {
    "samples.png": ("Samples", "E[x | z] with z drawn from the prior"),
    "latent_map.png": ("Latent map", "posterior means, in the color of their class where there are classes"),
    "factors.png": (
        "Factors",
        "of each latent and each factor: the share of the factor's entropy that the latent tells, how well the latent "
        "alone predicts the factor, and how much it matters in a forest that has all of them",
    ),
    "reconstructions.png": ("Reconstructions", "each image with E[x | z] at its posterior mean below it"),
    "traversals.png": ("Traversals", "one latent in each row, the most varying first, over 2.5 standard deviations"),
    "confusion.png": ("Confusion", "of each class, what the classifier takes it for"),
    "clusters.png": ("Clusters", "points in the color of their most probable component, ellipses of two deviations"),
    "objects.png": ("Objects", "boxes around the objects that are found, and below what is painted of them"),
    "segments.png": (
        "Segments",
        "each image, its reconstruction, its pixels in the color of the slot that owns them, and what each slot paints",
    ),
    "strokes.gif": ("Strokes", "samples as they are painted, and the windows they are painted through"),
    "strokes.png": ("Strokes", "some of the strokes, and the finished samples"),
    "glimpses.png": ("Glimpses", "where images are read, and below it what is painted of them by then, and where"),
    "functions.png": ("Functions", "known points, the truth (dashed), and the mean with two standard deviations"),
    "completions.png": ("Completions", "each image, then some of its pixels, the mean and the standard deviation"),
    "samples.txt": ("Samples", "what the model writes"),
    "reconstructions.txt": ("Reconstructions", "each text with the likeliest tokens at its posterior mean below it"),
    "interpolations.txt": ("Interpolations", "what the model writes on the way from one posterior mean to another"),
    "attention_context.png": ("Attention", "which of the known points a target, a row or the green pixel, looks at"),
    "attention_above.png": (
        "Layers above",
        "how much the context of each layer attends to each layer above it, mean over pixels, heads and images",
    ),
    "attention_evidence.png": (
        "Evidence",
        "how much the posterior of each layer attends to each block that has read the image, mean over all of them",
    ),
    "attention_*.png": (
        "",
        "over images: where the green cell, a head or a query looks, the yellower the more; of tokens: a row for each "
        "that looks",
    ),
    "lengths.png": ("Lengths", "the same model on rows of other lengths than it was trained on"),
    "alignment_*.png": ("", "which tokens of the source each token of the target looks at"),
    "answers.txt": ("Answers", "each token given the right ones before it"),
    "translations.txt": ("Translations", "source, target and translation"),
}
"""Name of a file, or a pattern -> title, its own name if empty, and caption."""
PIXELS = ("samples", "reconstructions", "interpolations", "segments")
"""Pictures whose pixels are the data's: enlarged without smoothing. Where names are written beside them, and a card is
narrower than they are, letters would lose lines."""
_EPOCH = re.compile(r"-epoch(\d+)$")
_MOST_EARLIER = 12
"""Pictures and texts of earlier epochs shown for each kind."""


@dataclass(frozen=True, slots=True)
class Image:
    """An embedded picture."""

    title: str
    caption: str
    uri: str
    width: int
    height: int
    pixelated: bool


@dataclass(frozen=True, slots=True)
class Text:
    """A text that a model has written."""

    title: str
    caption: str
    content: str


def final(paths: Iterable[Path]) -> list[Path]:
    """The files of the end of a run, in the order of the captions."""
    found = [path for path in paths if not _EPOCH.search(path.stem)]
    return sorted(found, key=lambda path: (_place(path.name), path.name))


def _place(name: str) -> int:
    """The place of a file's caption among all; after the last if it has none."""
    return next((place for place, pattern in enumerate(_CAPTIONS) if fnmatch(name, pattern)), len(_CAPTIONS))


def earlier(paths: Iterable[Path]) -> list[Path]:
    """The files of earlier epochs: all of them if they are few, else some, spread evenly over the training."""
    kinds: dict[str, list[Path]] = {}
    for path in paths:
        kind, epoch = _kind(path)
        if epoch is not None:
            kinds.setdefault(f"{kind}{path.suffix}", []).append(path)
    return [group[i] for group in kinds.values() for i in spread(len(group), _MOST_EARLIER)]


def spread(n: int, most: int) -> list[int]:
    """At most so many of the places 0 .. n - 1, spread evenly, the first and the last among them."""
    return sorted({round(k * (n - 1) / (most - 1)) for k in range(most)})


def _kind(path: Path) -> tuple[str, int | None]:
    """What a file shows, and the epoch that it is of; None: the end."""
    found = _EPOCH.search(path.stem)
    return (path.stem, None) if found is None else (path.stem[: found.start()], int(found[1]))


def _titled(path: Path) -> tuple[str, str]:
    """Title and caption of what a file shows."""
    kind, epoch = _kind(path)
    place = _place(f"{kind}{path.suffix}")
    title, caption = list(_CAPTIONS.values())[place] if place < len(_CAPTIONS) else ("", "")
    title = title or kind.replace("_", " ").capitalize()
    return (title, caption) if epoch is None else (f"{title}, epoch {epoch}", "")


def image(path: Path) -> Image:
    """A PNG or GIF file, to be embedded in the page."""
    content, kind = path.read_bytes(), path.suffix.removeprefix(".")
    # Both begin with their size.
    if kind == "gif":
        width, height = (int.from_bytes(content[at : at + 2], "little") for at in (6, 8))
    else:
        width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    uri = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return Image(*_titled(path), uri, width, height, pixelated=path.stem.partition("-")[0] in PIXELS)


def text(path: Path) -> Text:
    """A text file, to be embedded in the page."""
    return Text(*_titled(path), path.read_text(encoding="utf-8"))
