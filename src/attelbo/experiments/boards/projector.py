"""TensorBoard's embedding projector: posterior means that can be rotated, with labels and small pictures.

Shapes: N rows, D latent dimensions.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from attelbo.training.media import in_color


def write_projector(
    folder: Path, head: Sequence[str], rows: Sequence[Sequence[int]], means: Tensor, images: Tensor | None
) -> Path:
    """Write what the projector shows, replacing what it showed before.

    Args:
        folder: a folder for this alone, below one that TensorBoard is given.
        head: names of the columns of ``rows``.
        rows: N rows of a split, each its number and its labels.
        means: (N, D).
        images: (N, C, H, W) in [0, 1]; those without three channels are shown in gray.
    """
    from torch.utils.tensorboard import SummaryWriter

    shutil.rmtree(folder, ignore_errors=True)
    shown = None if images is None else in_color(images)
    with SummaryWriter(str(folder)) as writer:
        writer.add_embedding(means, metadata=rows, label_img=shown, tag="posterior means", metadata_header=head)
    return folder
