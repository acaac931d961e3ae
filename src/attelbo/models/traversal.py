"""Latent traversals: which latents, how far, and the images along the way.

Shapes: N rows, D latents, S values of one of them.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from attelbo.latent.spaces import OneHot, Positive, Product, Space, Sphere
from attelbo.models.latent_variable import LatentVariableModel


def axes_of(
    space: Space, base: Tensor, means: Tensor, steps: int, limit: float, n: int | None = None
) -> dict[str, Tensor]:
    """The paths of z, (S, D) each, that vary one latent around ``base`` (D,), by the name of the latent: ``z1`` is the
    first of z, ``z3-12`` one with ten classes. The most varying is the first.

    Args:
        space: where z lives, not one of codes.
        base: the z that is varied.
        means: posterior means of many images, (N, D), which determine the range of each latent.
        steps: values of a real latent; a choice has as many as it has classes.
        limit: the range of a real latent, in standard deviations of ``means``.
        n: the most paths; all if None.
    """
    center, spread = means.mean(0), means.std(0, correction=0)
    positions = torch.linspace(-limit, limit, steps, device=base.device)
    each = spread.tolist()
    found: list[tuple[float, int, int]] = []  # its spread, its first place, its number of classes
    place = 0
    for part in space.parts if isinstance(space, Product) else (space,):
        choices, classes = part.shape if isinstance(part, OneHot) else (torch.Size(part.shape).numel(), 1)
        for _ in range(choices):
            here = each[place : place + classes]
            found.append((sum(value**2 for value in here) ** 0.5, place, classes))
            place += classes
    paths = {}
    for _, place, classes in sorted(found, key=lambda item: -item[0])[:n]:
        path = base.repeat(steps if classes == 1 else classes, 1)
        if classes == 1:
            path[:, place] = center[place] + positions * spread[place]
            path = _within(space, path, place)
        else:
            path[:, place : place + classes] = torch.eye(classes, dtype=base.dtype, device=base.device)
        paths[f"z{place + 1}" if classes == 1 else f"z{place + 1}-{place + classes}"] = path
    return paths


def _within(space: Space, path: Tensor, place: int) -> Tensor:
    """The path (S, D) along the latent at ``place``, kept in the space."""
    if isinstance(space, Positive):
        return path.clamp(min=0)
    return _on_sphere(path, place) if isinstance(space, Sphere) else path


def _on_sphere(path: Tensor, place: int) -> Tensor:
    """Unit vectors (S, D) with the same latent at ``place``, cut to [-1, 1], and the others in the same proportions."""
    kept = torch.zeros_like(path)
    kept[:, place] = path[:, place].clamp(-1, 1)
    others = path.clone()
    others[:, place] = 0
    return kept + (1 - kept[:, place, None].square()).sqrt() * F.normalize(others)


def traversals(
    model: LatentVariableModel, x: Tensor, y: Tensor | None, means: Tensor, steps: int, limit: float, n: int
) -> dict[str, Tensor]:
    """The images (S, C, H, W) along each of the n most varying latents, by its name, around the encoding of x.

    Args:
        model: of images, whose z are not codes.
        x: one image, (1, C, H, W).
        y: its labels, if it has any.
        means: posterior means of many images, (N, D).
        steps: see :func:`axes_of`.
        limit: see :func:`axes_of`.
        n: latents.
    """
    base = model.encode(x, y)[0]
    axes = axes_of(model.space, base, means, steps, limit, n)
    return {name: model.generate(z, None if y is None else y.expand(len(z), *y.shape[1:])) for name, z in axes.items()}
