"""Which latents there are to move along, how far, and what images are on the way.

Shapes: N rows, D latents, S values of one of them.
"""

import math

import torch
from torch import Tensor

from attelbo.latent.spaces import Ball, OneHot, Positive, Product, Real, Space, Sphere
from attelbo.models.latent_variable import LatentVariableModel


def space_of(model: LatentVariableModel) -> Space:
    """Where the model's z lives; the layers of a hierarchy are real numbers, all of them together."""
    space = getattr(getattr(model, "posterior", None), "space", None)
    return Real((model.n_latent,)) if space is None else space


def is_vector(model: LatentVariableModel) -> bool:
    """Whether its latents are numbers or choices that stand for the whole image: neither a map of it, nor codes."""
    if (layers := getattr(model, "layer_shapes", None)) is not None:
        return all(len(shape) == 1 for shape in layers)
    space = getattr(getattr(model, "posterior", None), "space", None)
    if isinstance(space, Real | Positive | Sphere | Ball):
        return len(space.shape) == 1
    return isinstance(space, OneHot | Product)


def axes_of(space: Space, base: Tensor, means: Tensor, steps: int, limit: float, n: int | None = None) -> list[Tensor]:
    """The paths of z, (S, D) each, that vary one latent around ``base`` (D,), the most varying first.

    Args:
        space: where z lives; of codes there are none.
        base: the z that is varied.
        means: posterior means of many images, (N, D): they say how far a latent goes.
        steps: values of a real latent; a choice has as many as it has classes.
        limit: how far a real one goes, in standard deviations of ``means``.
        n: so many paths, if there are; all if None.
    """
    center, spread = means.mean(0), means.std(0, correction=0)
    positions = torch.linspace(-limit, limit, steps, device=base.device)
    each = spread.tolist()
    found: list[tuple[float, int, int]] = []  # how far it goes, its first place, how many classes it has
    place = 0
    least = 0.0 if isinstance(space, Positive) else -math.inf
    for part in space.parts if isinstance(space, Product) else (space,):
        choices, classes = part.shape if isinstance(part, OneHot) else (torch.Size(part.shape).numel(), 1)
        for _ in range(choices):
            here = each[place : place + classes]
            found.append((sum(value**2 for value in here) ** 0.5, place, classes))
            place += classes
    paths = []
    for _, place, classes in sorted(found, key=lambda item: -item[0])[:n]:
        path = base.repeat(steps if classes == 1 else classes, 1)
        if classes == 1:
            path[:, place] = (center[place] + positions * spread[place]).clamp(min=least)
        else:
            path[:, place : place + classes] = torch.eye(classes, dtype=base.dtype, device=base.device)
        paths.append(path)
    return paths


def traversals(
    model: LatentVariableModel, x: Tensor, y: Tensor | None, means: Tensor, steps: int, limit: float, n: int
) -> list[Tensor]:
    """The images (S, C, H, W) along each of the n most varying latents, around the encoding of x.

    Args:
        model: of images, whose z are no codes.
        x: one image, (1, C, H, W).
        y: its labels, if it has any.
        means: posterior means of many images, (N, D).
        steps: see :func:`axes_of`.
        limit: see :func:`axes_of`.
        n: latents.
    """
    base = model.encode(x, y)[0]
    axes = axes_of(space_of(model), base, means, steps, limit, n)
    return [model.generate(z, None if y is None else y.expand(len(z), *y.shape[1:])) for z in axes]
