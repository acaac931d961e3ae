"""How close reconstructions are to their images: PSNR, SSIM and MS-SSIM, by torchmetrics.

- Structural similarity: Wang, Bovik, Sheikh & Simoncelli 2004; the image is mirrored at its border.
- Multi-scale structural similarity: Wang, Simoncelli & Bovik 2003.

Shapes: N images (C, H, W) with values in [0, 1].
"""

import torch
from torch import Tensor

WINDOW = 11
"""Of the Gaussian, in pixels: an image must be at least as large."""
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the scales in the paper, each half as large as the one before."""


def image_similarity(images: Tensor, reconstructions: Tensor) -> dict[str, Tensor]:
    """The similarity of each image to its reconstruction, 1 or infinity where they are the same.

    ``psnr`` is in dB. ``ssim`` is left out for images smaller than the window, ``ms_ssim`` for those that are too small
    for two scales. Differs from the paper: of the five scales it takes as many as have room for the window, with
    weights that add up to 1.

    Args:
        images: (N, C, H, W).
        reconstructions: the same.

    Returns:
        (N,) for each name.
    """
    from torchmetrics.functional.image import (
        multiscale_structural_similarity_index_measure,
        structural_similarity_index_measure,
    )

    error = (images - reconstructions).square().flatten(1).mean(1)
    found = {"psnr": -10 * error.log10()}
    shorter = min(images.shape[-2:])
    if shorter < WINDOW:
        return found
    ssim = structural_similarity_index_measure(reconstructions, images, reduction="none", data_range=1.0)
    assert isinstance(ssim, Tensor)
    found["ssim"] = ssim
    n_scales = n_scales_of(shorter)
    if n_scales > 1:
        weights = torch.tensor(WEIGHTS[:n_scales])
        found["ms_ssim"] = multiscale_structural_similarity_index_measure(
            reconstructions,
            images,
            reduction="none",
            data_range=1.0,
            betas=tuple((weights / weights.sum()).tolist()),
            normalize="relu",
        )
    return found


def n_scales_of(shorter: int) -> int:
    """The scales, five at most, at which the shorter side of an image has room for the window."""
    # Each halves the side; torchmetrics wants a little more for the fourth (99 pixels).
    return sum(shorter // max(2**scale, scale**2) >= WINDOW for scale in range(len(WEIGHTS)))
