"""Which latents there are to move along, and how far.

Shapes: N rows, D latents, S values of one of them.
"""

import torch
from torch import Tensor

from attelbo.latent.spaces import OneHot, Product, Real, Space
from attelbo.models.latent_variable import LatentVariableModel


def space_of(model: LatentVariableModel) -> Space:
    """Where the model's z lives; the layers of a hierarchy are real numbers, all of them together."""
    posterior = getattr(model, "posterior", None)
    return Real((model.n_latent,)) if posterior is None else posterior.space


def axes_of(space: Space, base: Tensor, means: Tensor, steps: int, limit: float) -> list[Tensor]:
    """The paths of z, (S, D) each, that vary one latent around ``base`` (D,), the most varying first.

    Args:
        space: where z lives; of codes there are none.
        base: the z that is varied.
        means: posterior means of many images, (N, D): they say how far a latent goes.
        steps: values of a real latent; a choice has as many as it has classes.
        limit: how far a real one goes, in standard deviations of ``means``.
    """
    center, spread = means.mean(0), means.std(0, correction=0)
    positions = torch.linspace(-limit, limit, steps, device=base.device)
    found: list[tuple[float, Tensor]] = []
    place = 0
    for part in space.parts if isinstance(space, Product) else (space,):
        if isinstance(part, OneHot):
            choices, classes = part.shape
            for _ in range(choices):
                here = slice(place, place + classes)
                path = base.repeat(classes, 1)
                path[:, here] = torch.eye(classes, dtype=base.dtype, device=base.device)
                found.append((float(spread[here].norm()), path))
                place += classes
        else:
            for _ in range(torch.Size(part.shape).numel()):
                path = base.repeat(steps, 1)
                path[:, place] = center[place] + positions * spread[place]
                found.append((float(spread[place]), path))
                place += 1
    return [path for _, path in sorted(found, key=lambda item: -item[0])]
