"""Samples in groups, however many are asked for, and images of them as data for other programs.

Shapes: n images (n, C, H, W), in groups of at most ``GROUP``.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from attelbo.errors import ConfigError
from attelbo.experiments.terminal import tracked
from attelbo.files import followed, replacing
from attelbo.models import LatentVariableModel
from attelbo.training.media import png_bytes, to_levels, to_uint8

GROUP = 100
"""Samples that are drawn at a time. Fixed, since the draw depends on it: the same n and seed give the same samples
whatever the memory of the machine."""


def in_groups(n: int) -> Iterator[range]:
    """The places 0 .. n - 1 in groups, with a progress bar where there are several."""
    groups = [range(first, min(first + GROUP, n)) for first in range(0, n, GROUP)]
    yield from groups if len(groups) == 1 else tracked(groups, f"{n:,} samples")


def sampled_images(model: LatentVariableModel, n: int, y: int | None) -> Iterator[tuple[Tensor, Tensor | None]]:
    """n images E[x|z], z from the prior, in groups with their labels.

    Args:
        model: draws by the default generator.
        n: how many.
        y: the class of all; if None the classes in turn, where the model knows any.
    """
    for places in in_groups(n):
        labels = None
        if model.known_classes is not None:
            turn = torch.arange(places.start, places.stop, device=model.device) % model.known_classes
            labels = turn if y is None else torch.full_like(turn, y)
        yield model.sample(len(places), labels), labels


def write_array(groups: Iterator[tuple[Tensor, Tensor | None]], path: Path) -> Path:
    """Write an NPZ file in the layout that evaluators of samples read: ``arr_0`` the images, (n, H, W, C) uint8, and
    ``arr_1`` their labels, (n,), where they have some."""
    images, labels = zip(*((to_levels(x), y) for x, y in groups), strict=True)
    arrays = [np.concatenate(images)]
    if labels[0] is not None:
        arrays.append(torch.cat(labels).cpu().numpy())
    with replacing(path) as file:
        np.savez(file, *arrays)
    return path


def write_folder(groups: Iterator[tuple[Tensor, Tensor | None]], path: Path) -> Path:
    """Write a new folder of PNG files, ``000000.png`` and so on, or ``000000-y7.png`` where they have labels; the
    folder appears once it is complete.

    Raises:
        ConfigError: there is something in it already, it is ``.``, or it cannot be made.
    """
    if not path.name or path.is_file() or (path.is_dir() and any(path.iterdir())):
        what = "has no name" if not path.name else "is not empty" if path.is_dir() else "is a file"
        raise ConfigError(
            f"output={path}: it {what}; samples go into a new folder, or a name that ends in .png or .npz"
        )
    folder = followed(path)
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        unfinished.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(f"output={path}: it cannot be written: {error.strerror}") from error
    try:
        place = 0
        for images, labels in groups:
            marks = [""] * len(images) if labels is None else [f"-y{label}" for label in labels.tolist()]
            for picture, mark in zip(to_uint8(images), marks, strict=True):
                (unfinished / f"{place:06d}{mark}.png").write_bytes(png_bytes(picture))
                place += 1
        unfinished.replace(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return path
