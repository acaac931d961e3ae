"""What a neural process predicts from the points that it is given: curves with a band, completed images.

Shapes: n functions, N points of the largest context, M places, K samples of z.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, Unpack

import torch
from torch import Tensor, nn

from attelbo.checks import check_at_least
from attelbo.data.batch import CONTEXT, IGNORE, Batch
from attelbo.data.pixels import PixelDataModule, pixel_places
from attelbo.data.tasks import FunctionDataModule, GaussianProcess
from attelbo.models import NeuralProcess
from attelbo.training.boxes import SMALL, enlarged
from attelbo.training.callbacks.attention_maps import over_images
from attelbo.training.callbacks.context_maps import context_weights, draw_context_weights
from attelbo.training.callbacks.exhibit import Exhibit, ExhibitedData, ExhibitOptions
from attelbo.training.media import Picture, image_grid, in_color, painted
from attelbo.training.names import named

SIZES = (3, 5, 8, 12, 20, 40)
"""Points of the context of each curve that is shown."""
SHARES = (0.05, 0.15, 0.4)
"""Of the pixels of an image."""
LINES = 5
"""Means, for one z each, in the picture of a curve."""
_PLACES = 200
_UNKNOWN = (0.16, 0.24, 0.42)
"""The color of a pixel that is not known."""


class Curves(NamedTuple):
    """Curves of which some points are known, and the predictions elsewhere."""

    context: Batch
    """x and y (n, N, 1), of which only the first points of each curve are known."""
    places: Tensor
    """(n, M, 1), in order."""
    truth: Tensor
    """(n, M, 1)."""
    mean: Tensor
    """Of p(y|x, z, C) for each z, (K, n, M, 1)."""
    std: Tensor
    """(K, n, M, 1)."""


class Functions(Exhibit):
    """``functions``: new curves, the points that are known and the predictions elsewhere; ``completions``: the same for
    images; ``attention_context``, where there is attention: which of the known points the targets look at.

    Args:
        n_images: images that are completed.
        n_samples: samples of z that predictions are averaged over.
        options: see :class:`ExhibitOptions`.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        n_images: int = 8,
        n_samples: int = 50,
        **options: Unpack[ExhibitOptions],
    ) -> None:
        super().__init__(**options)
        check_at_least(1, n_images=n_images, n_samples=n_samples)
        self.n_images = n_images
        self.n_samples = n_samples

    def serves(self, model: nn.Module, data: ExhibitedData) -> bool:
        return isinstance(model, NeuralProcess)

    def works(self, model: NeuralProcess, data: Any) -> dict[str, Picture]:
        n_samples = self.n_samples if model.n_latent else 1
        rows = self.rows(data, self.n_images, model.device).index
        if isinstance(data, PixelDataModule):
            images = data.images(rows, self.split)
            return {"completions": draw_completions(model, images, n_samples)} | draw_pixel_weights(model, images)
        if isinstance(data, FunctionDataModule) and isinstance(data.task, GaussianProcess):
            curves = predict_curves(model, data.task, n_samples)
            pictures = {"functions": draw_curves(curves, LINES if model.n_latent else 0)}
            weights = context_weights(model, curves.context, curves.places)
            if weights is not None:
                pictures["attention_context"] = draw_context_weights(weights, curves.context, curves.places)
            return pictures
        return {}


# -- curves ----------------------------------------------------------------------------------------------


def predict_curves(model: NeuralProcess, task: GaussianProcess, n_samples: int) -> Curves:
    """A new curve for each of ``SIZES``, and what the model predicts for it."""
    sizes, device = torch.tensor(SIZES, device=model.device), model.device
    n, most = len(SIZES), max(SIZES)
    known = task.half_width * (2 * torch.rand(n, most, 1, device=device) - 1)
    places = torch.linspace(-task.half_width, task.half_width, _PLACES, device=device).expand(n, -1).unsqueeze(-1)
    values = task.values(torch.cat([known, places], 1))
    there = torch.arange(most, device=device) < sizes.unsqueeze(1)
    segments = torch.where(there, CONTEXT, IGNORE)
    context = Batch(known, values[:, :most], torch.arange(n, device=device), segments)
    return Curves(context, places, values[:, most:], *model.predict(context, places, n_samples))


def draw_curves(curves: Curves, lines: int) -> Picture:
    """A panel for each curve: known points, truth, mean with two standard deviations on both sides, and the mean for
    each of the first ``lines`` z."""
    from matplotlib.figure import Figure

    mean, std = (part[..., 0].cpu() for part in total(curves.mean, curves.std))
    places, truth, each = (part[..., 0].cpu() for part in (curves.places, curves.truth, curves.mean[:lines]))
    assert curves.context.y is not None
    assert curves.context.segments is not None
    figure = Figure(figsize=(10.8, 5.6), dpi=120, layout="constrained")
    panels: list[Any] = [*figure.subplots(2, -(-len(mean) // 2), sharex=True, sharey=True).flat]
    for row, panel in enumerate(panels[: len(mean)]):
        known = (curves.context.segments[row] == CONTEXT).cpu()
        x, y = (part[row, :, 0].cpu()[known] for part in (curves.context.x, curves.context.y))
        band = (mean[row] - 2 * std[row], mean[row] + 2 * std[row])
        panel.fill_between(places[row], *band, color="#3b6fb6", alpha=0.18, linewidth=0)
        for line in each[:, row]:
            panel.plot(places[row], line, color="#3b6fb6", linewidth=0.6, alpha=0.5)
        panel.plot(places[row], mean[row], color="#3b6fb6", linewidth=1.6)
        panel.plot(places[row], truth[row], color="#5b6270", linewidth=1.0, linestyle="--")
        panel.plot(x, y, "o", color="black", markersize=3.5)
        panel.set_title(f"{len(x)} points known", loc="left", fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(length=0, labelsize=8, colors="#5b6270")
    return painted(figure)


# -- images ----------------------------------------------------------------------------------------------


def draw_completions(model: NeuralProcess, images: Tensor, n_samples: int) -> Picture:
    """A column for each image (n, C, H, W): the image, and for each of ``SHARES`` its known pixels, the mean and the
    standard deviation, white where it is largest."""
    rows, names = [in_color(images)], ["image"]
    for share, (known, mean, std) in zip(SHARES, complete(model, images, n_samples), strict=True):
        mean, std = total(mean, std)
        rows += [known, in_color(mean), in_color(std / std.max())]
        names += [f"{share:.0%} known", "mean", "deviation"]
    large = torch.cat([enlarged(row, SMALL)[0] for row in rows])
    return named(image_grid(large, columns=len(images)), names)


def draw_choices(model: NeuralProcess, images: Tensor, n_samples: int) -> Picture:
    """A row for each image and each of ``SHARES``: the image, its known pixels, and the mean for each of some z."""
    parts = [
        torch.stack([in_color(images), known, *(in_color(each) for each in mean)], 1)
        for known, mean, _ in complete(model, images, n_samples)
    ]
    return image_grid(torch.stack(parts, 1).flatten(0, 2), columns=n_samples + 2)


def complete(model: NeuralProcess, images: Tensor, n_samples: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """For each of ``SHARES``: the known pixels of images (n, C, H, W) in three colors; mean and standard deviation of
    the prediction, (K, n, C, H, W). The pixels of a small share are among those of a larger one."""
    found = []
    for context, shown in some_pixels(images):
        parts = model.predict(context, context.x, n_samples)
        mean, std = (part.mT.unflatten(-1, images.shape[-2:]) for part in parts)
        found.append((shown, mean, std))
    return found


def some_pixels(images: Tensor) -> Iterator[tuple[Batch, Tensor]]:
    """For each of ``SHARES`` that many known pixels of images (n, C, H, W): all pixels as points, the known ones as
    context, and the images in three colors with unknown pixels filled."""
    n, _, height, width = images.shape
    places = pixel_places(height, width, images.device).expand(n, -1, -1)
    order = torch.rand(n, height * width, device=images.device).argsort(1).argsort(1)
    for share in SHARES:
        known = order < max(1, round(share * height * width))
        values = images.flatten(2).mT
        context = Batch(places, values, torch.arange(n, device=images.device), torch.where(known, CONTEXT, IGNORE))
        unknown = images.new_tensor(_UNKNOWN).view(3, 1, 1)
        yield context, torch.where(known.view(n, 1, height, width), in_color(images), unknown)


def draw_pixel_weights(model: NeuralProcess, images: Tensor) -> dict[str, Picture]:
    """``attention_context``: a row for each image, its known pixels at the largest of ``SHARES``, then below the
    attention of each of four pixels (green); empty for a model without attention."""
    context, shown = list(some_pixels(images))[-1]
    weights = context_weights(model, context, context.x)
    picture = None if weights is None else over_images(weights, shown)
    return {} if picture is None else {"attention_context": picture}


def total(mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of an equal mixture of K, (K, ...): the law of total variance."""
    return mean.mean(0), (std.square().mean(0) + mean.var(0, correction=0)).sqrt()
