"""Which layers of a deep attentive VAE attend to which.

Shapes: L layers of latents, S maps that a posterior sees.
"""

from typing import Unpack

from torch import nn

from attelbo.checks import check_at_least
from attelbo.models import DeepAttentiveVAE
from attelbo.training.callbacks.exhibit import Exhibit, ExhibitedData, ExhibitOptions
from attelbo.training.maps import attention_map
from attelbo.training.media import Picture


class Depths(Exhibit):
    """``attention_above``: how much the context of each layer attends to each layer above it; ``attention_evidence``:
    how much its posterior does to each block that has read the image, from the image on. Means over pixels, heads and
    images, with the size of each map.

    Args:
        n_images: images that are encoded.
        options: see :class:`ExhibitOptions`.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(self, n_images: int = 64, **options: Unpack[ExhibitOptions]) -> None:
        super().__init__(**options)
        check_at_least(1, n_images=n_images)
        self.n_images = n_images

    def serves(self, model: nn.Module, data: ExhibitedData) -> bool:
        return isinstance(model, DeepAttentiveVAE)

    def works(self, model: DeepAttentiveVAE, data: ExhibitedData) -> dict[str, Picture]:
        weights = model.depth_weights(self.rows(data, self.n_images, model.device).x)
        layers = [_label(str(i), model.sizes[level]) for i, level in enumerate(model.level_of, 1)]
        levels = [level for level, n in enumerate(model.blocks) for _ in range(n)]  # of each block from the image on
        blocks = [_label(str(i), model.sizes[level]) for i, level in enumerate(levels, 1)]
        asking = [i for i, row in enumerate(weights.above.tolist()) if any(row)]
        works = {
            "attention_evidence": attention_map(
                weights.evidence,
                layers,
                [_label("input", model.sizes[0]), *blocks],
                "Blocks that have read the image, seen by the posterior of each layer",
                axes=("layer", "block, from the image on"),
            )
        }
        if asking:
            works["attention_above"] = attention_map(
                weights.above[asking, :-1],
                [layers[i] for i in asking],
                layers[:-1],
                "Layers above, seen by each layer of the hierarchy",
                axes=("layer", "layer above, from the top on"),
            )
        return works


def _label(name: str, size: tuple[int, int]) -> str:
    return f"{name}:\u00a0{size[0]}x{size[1]}"  # a space as it is, where labels mark those of tokens
