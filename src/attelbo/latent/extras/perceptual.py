"""Feature consistency (Hou, Shen, Sun & Qiu 2017, "Deep Feature Consistent Variational Autoencoder", arXiv:1610.00291,
section 3.2): images and reconstructions are compared in the features of VGG-19 (Simonyan & Zisserman 2015,
arXiv:1409.1556, configuration E), trained on ImageNet.

Shapes: N images (C, H, W) with values in [0, 1].
"""

import pickle
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from attelbo.checks import check_not_negative
from attelbo.errors import DataError, first_line
from attelbo.latent.arithmetic import full_precision
from attelbo.latent.extras.base import Extra

URL = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
"""The weights that torchvision publishes; the file's name has the beginning of its SHA-256 sum."""
CONVOLUTIONS = (2, 2, 4, 4, 4)
"""In each block of the network, 3x3 with a ReLU; blocks are separated by maxima over 2x2 pixels."""
BLOCKS = {f"relu{block}_{i}": block for block, n in enumerate(CONVOLUTIONS, 1) for i in range(1, n + 1)}
"""ReLU, as the paper names it -> its block, from 1; in the order of the network."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the channels of ImageNet, by which the network was trained to expect its input standardized."""


class Perceptual(Extra):
    """weight * sum_l 1 / (2 C_l H_l W_l) |Phi_l(x) - Phi_l(E[x|z])|^2, with the features Phi_l of chosen layers.

    The paper has this in place of log p(x|z), with a weight of 0.5 beside the KL; here it is added to a likelihood, so
    that there is still a bound. Gray images are given to the network three times, as its three colors.

    The weights (548 MB, of which the network keeps 2 MB for the default layers) are downloaded once, to the folder of
    torch.hub, ``$TORCH_HOME/hub/checkpoints``. They are not trained, and are in no checkpoint.

    Args:
        data_shape: (C, H, W), C 1 or 3.
        weight: of the distance, relative to a reconstruction in nats.
        layers: names of ReLUs, ``relu1_1`` to ``relu5_4``.

    Raises:
        ValueError: no image of one or three channels, or too small for the layers; no such layer; a negative weight.
        DataError: the weights are missing and cannot be downloaded, or are damaged.
    """

    of_unit_range = True

    def __init__(
        self,
        data_shape: Sequence[int],
        weight: float = 10.0,
        layers: Sequence[str] = ("relu1_1", "relu2_1", "relu3_1"),
    ) -> None:
        super().__init__()
        check_not_negative(weight=weight)
        if not layers or not set(layers) <= BLOCKS.keys():
            raise ValueError(f"layers must be some of {', '.join(BLOCKS)}, got {', '.join(layers) or 'none'}")
        names = list(BLOCKS)
        self.chosen = frozenset(layers)
        self.names = names[: 1 + max(map(names.index, layers))]
        least = 2 ** (BLOCKS[self.names[-1]] - 1)
        if len(data_shape) != 3 or data_shape[0] not in (1, 3) or min(data_shape[1:]) < least:
            raise ValueError(
                f"data_shape must be (1 or 3 channels, height, width), at least {least} pixels each way for "
                f"{self.names[-1]}, got {tuple(data_shape)}"
            )
        self.weight = weight
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)
        for name, tensor in _published(self.names).items():
            self.register_buffer(name, tensor, persistent=False)

    def distance(self, x: Tensor, reconstruction: Tensor) -> Tensor:
        pairs = zip(self.features(x), self.features(reconstruction), strict=True)
        means = [(full_precision(a) - full_precision(b)).square().flatten(1).mean(1) for a, b in pairs]
        return 0.5 * torch.stack(means).sum(0)

    def features(self, x: Tensor) -> list[Tensor]:
        """Phi_l of x (N, C, H, W), each (N, C_l, H_l, W_l), from the first layer to the last."""
        x = (full_precision(x).expand(-1, 3, -1, -1) - self.get_buffer("mean")) / self.get_buffer("std")
        found: list[Tensor] = []
        for layer in self.names:
            if layer.endswith("_1") and layer != "relu1_1":
                x = F.max_pool2d(x, 2)
            x = F.conv2d(x, self.get_buffer(f"{layer}_weight"), self.get_buffer(f"{layer}_bias"), padding=1).relu()
            if layer in self.chosen:
                found.append(x)
        return found


def _published(layers: Sequence[str]) -> dict[str, Tensor]:
    """The weights and biases of the first convolutions, as many as there are layers, by the name of the ReLU behind
    each.

    Raises:
        DataError: they are missing and cannot be downloaded, or are damaged.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(URL).name
    try:
        weights = torch.hub.load_state_dict_from_url(URL, map_location="cpu", check_hash=True, weights_only=True)
        return {
            # torchvision counts convolutions, ReLUs and maxima alike.
            f"{layer}_{kind}": weights[f"features.{2 * i + BLOCKS[layer] - 1}.{kind}"]
            for i, layer in enumerate(layers)
            for kind in ("weight", "bias")
        }
    # torch raises RuntimeError for a wrong checksum; reading a damaged file may raise any of these.
    except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        remedy = "move it away to download it again" if path.is_file() else f"put {URL} there, or set TORCH_HOME"
        raise DataError(
            f"model.extra: the weights of VGG-19 cannot be read from {path} ({first_line(error)}); {remedy}; "
            "model/extra=ms_ssim needs none"
        ) from error
