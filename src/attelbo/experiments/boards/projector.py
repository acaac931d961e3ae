"""The embedding projector of TensorBoard: posterior means to be turned around, with labels and small pictures.

Shapes: N rows, D latent dimensions, F labels of a row.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor


def write_projector(
    folder: Path, index: Tensor, names: Sequence[str], labels: Tensor | None, means: Tensor, images: Tensor | None
) -> Path:
    """Write what the projector shows, in place of what it showed before.

    Args:
        folder: of its own, below one that TensorBoard is given.
        index: (N,), the rows of the split.
        names: of the F labels.
        labels: (N, F).
        means: (N, D).
        images: (N, C, H, W) in [0, 1], those that have not three channels are shown in gray.
    """
    from torch.utils.tensorboard import SummaryWriter

    shutil.rmtree(folder, ignore_errors=True)
    rows = index.unsqueeze(1).tolist()
    if labels is not None:
        rows = [[*row, *label] for row, label in zip(rows, labels.tolist(), strict=True)]
    if images is not None and images.shape[1] != 3:
        images = images.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    with SummaryWriter(str(folder)) as writer:
        writer.add_embedding(
            means, metadata=rows, label_img=images, tag="posterior means", metadata_header=["row", *names]
        )
    return folder
