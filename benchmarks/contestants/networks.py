"""The network of a task in plain torch, for every contestant but attelbo, and what they have in common.

Needs torch and numpy only. ``tests/test_benchmarks.py`` shows that loss and gradients are attelbo's own for the
same weights.

Shapes: N rows, B batch, (C, H, W) image, Z latent dimensions, (h, w) the smallest feature map.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.data import training_images
from benchmarks.task import OnDevice, Task
from benchmarks.turns import Span


class PlainVAE(nn.Module):
    """Encoder and decoder with a diagonal normal posterior, a standard normal prior and the task's likelihood.

    x (B, C, H, W) -> ``encoder`` -> mean and log std (B, 2 Z); z (B, Z) -> ``decoder`` -> eta (B, C, H, W).
    """

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.binary = task.data == "mnist"
        self.encoder, self.decoder = mlp(task) if task.network == "mlp" else convolutional(task)

    def forward(self, x: Tensor) -> Tensor:
        """-ELBO of x (B, C, H, W), nats, mean over the batch."""
        mean, log_std = self.posterior(x)
        std = log_std.exp()
        eta = self.decoder(torch.addcmul(mean, std, torch.randn_like(std)))
        kl = (0.5 * (mean.square() + std.square() - 1) - log_std).sum()
        return (self.distortion(eta, x) + kl) / len(x)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log std of q(z|x), (B, Z) each."""
        mean, log_std = self.encoder(x).chunk(2, 1)
        return mean, log_std.clamp(-10, 10)

    def distortion(self, eta: Tensor, x: Tensor) -> Tensor:
        """-log p(x|z), summed over everything."""
        if self.binary:
            return F.binary_cross_entropy_with_logits(eta, x, reduction="sum")
        return 0.5 * F.mse_loss(eta, x, reduction="sum") + 0.5 * math.log(2 * math.pi) * x.numel()

    @torch.no_grad()
    def elbo(self, images: Tensor, batch_size: int) -> float:
        """The mean ELBO of images (N, C, H, W), nats."""
        return -sum(self(x).item() * len(x) for x in images.split(batch_size)) / len(images)


def mlp(task: Task) -> tuple[nn.Sequential, nn.Sequential]:
    """Fully connected encoder and decoder."""
    pixels = math.prod(task.image)
    encoder = _linear([pixels, *task.hidden, 2 * task.latent_dim], task.activation)
    decoder = _linear([task.latent_dim, *reversed(task.hidden), pixels], task.activation)
    return nn.Sequential(nn.Flatten(), *encoder), nn.Sequential(*decoder, nn.Unflatten(1, task.image))


def _linear(sizes: Sequence[int], activation: str) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for place, (n_in, n_out) in enumerate(pairwise(sizes), start=2):
        last = place == len(sizes)
        layers += [initialize(nn.Linear(n_in, n_out), None if last else activation), activate(activation)]
    return layers[:-1]


def convolutional(task: Task) -> tuple[nn.Sequential, nn.Sequential]:
    """Convolutions 3 x 3 that halve height and width, and their transposes."""
    channels, height, width = task.image
    sizes, act = [(height, width)], task.activation
    down: list[nn.Module] = []
    for c_in, c_out in pairwise((channels, *task.hidden)):
        down += [initialize(nn.Conv2d(c_in, c_out, 3, stride=2, padding=1), act), activate(act)]
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    smallest = (task.hidden[-1], *sizes[-1])
    down += [nn.Flatten(), initialize(nn.Linear(math.prod(smallest), 2 * task.latent_dim))]

    up: list[nn.Module] = [initialize(nn.Linear(task.latent_dim, math.prod(smallest)), act)]
    up += [nn.Unflatten(1, smallest), activate(act)]
    for c_in, c_out in pairwise((*reversed(task.hidden), channels)):
        (h, w), (to_h, to_w) = sizes.pop(), sizes[-1]
        extra = (to_h - (2 * h - 1), to_w - (2 * w - 1))
        layer = nn.ConvTranspose2d(c_in, c_out, 3, stride=2, padding=1, output_padding=extra)
        up += [initialize(layer, act if len(sizes) > 1 else None), activate(act)]
    return nn.Sequential(*down), nn.Sequential(*up[:-1])


def activate(name: str) -> nn.Module:
    return nn.Tanh() if name == "tanh" else nn.ReLU()


def initialize(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d, activation: str | None = None) -> nn.Module:
    """He-normal before ReLU, else Glorot-uniform; a transposed convolution counts the taps that reach a pixel."""
    fan_in, fan_out = float(layer.weight[0].numel()), float(len(layer.weight))
    if isinstance(layer, nn.Conv2d):
        fan_out *= layer.weight[0, 0].numel() / math.prod(layer.stride)
    elif isinstance(layer, nn.ConvTranspose2d):
        fan_in, fan_out = fan_out * layer.weight[0, 0].numel() / math.prod(layer.stride), fan_in
    if activation == "relu":
        nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_in))
    else:
        bound = math.sqrt(6 / (fan_in + fan_out))
        nn.init.uniform_(layer.weight, -bound, bound)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


# -- what every contestant does ----------------------------------------------------------------------------


def begin(task: Task) -> None:
    """Threads and seed."""
    if task.threads is not None:
        torch.set_num_threads(task.threads)
    torch.manual_seed(0)


def images_of(task: Task) -> tuple[Tensor, Tensor]:
    """Bytes to train on and to validate with, (N, C, H, W) each."""
    images = torch.from_numpy(training_images(task.data, Path(task.data_dir)).copy())
    images = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))]
    return images[task.validation_size :][: task.train_size].clone(), images[: task.validation_size].clone()


def pixels(images: Tensor, task: Task) -> Tensor:
    """Bytes as what the network is trained on: drawn as bits in MNIST, else in [0, 1]."""
    levels = images.float().div_(255)
    return draw(levels) if task.data == "mnist" else levels


def draw(levels: Tensor) -> Tensor:
    """Independent Bernoulli draws; three times as fast as ``torch.bernoulli``."""
    return torch.rand_like(levels).lt(levels).to(levels.dtype)


def now(task: OnDevice) -> Span:
    """The clocks, when the GPU has done all that it was told to do."""
    if task.device == "cuda":
        torch.cuda.synchronize()
    return Span.now()


def gpu_memory(task: OnDevice) -> int | None:
    """Bytes that torch's allocator held at most so far."""
    return torch.cuda.max_memory_allocated() if task.device == "cuda" else None
