"""The bare loop: the same VAE in plain torch, with no framework and nothing in the way. As fast as we know how.

The bytes are resident, a step gathers its rows, binarizes them and takes one fused Adam step; the loss is written
out. Reading the files and the draw of the pixels are attelbo's functions: the one is not measured, and the
other is the fastest we know. It prints nothing, logs nothing and saves no checkpoint.

Shapes: B batch, D = 784 pixels, Z latent dimensions.
"""

import sys
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attelbo.data.binarize import draw_bits
from attelbo.data.sources import MNIST
from benchmarks.task import Task
from benchmarks.turns import Lap, Span, arguments

PIXELS = 784


class BareVAE(nn.Module):
    """Encoder and decoder with a Gaussian posterior, a standard normal prior and Bernoulli pixels."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.encoder = _layers([PIXELS, *task.hidden, 2 * task.latent_dim], task.activation)
        self.decoder = _layers([task.latent_dim, *task.hidden, PIXELS], task.activation)

    def forward(self, x: Tensor) -> Tensor:
        """-ELBO of x (B, D), nats, mean over the batch."""
        mean, log_std = self.encoder(x).chunk(2, 1)
        log_std = log_std.clamp(-10, 10)
        std = log_std.exp()
        eta = self.decoder(torch.addcmul(mean, std, torch.randn_like(std)))
        distortion = F.binary_cross_entropy_with_logits(eta, x, reduction="sum")
        kl = (0.5 * (mean.square() + std.square() - 1) - log_std).sum()
        return (distortion + kl) / len(x)


def _layers(sizes: list[int], activation: str) -> nn.Sequential:
    """Linear layers with an activation between two of them; Glorot-uniform before tanh and the output, else He."""
    layers: list[nn.Module] = []
    for place, (n_in, n_out) in enumerate(pairwise(sizes), start=2):
        linear = nn.Linear(n_in, n_out)
        if place < len(sizes) and activation == "relu":
            nn.init.kaiming_normal_(linear.weight)
        else:
            nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.Tanh() if activation == "tanh" else nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def train_epoch(model: BareVAE, optimizer: torch.optim.Optimizer, pixels: Tensor, batch_size: int) -> None:
    """One pass over pixels (N, D), uint8, in a new order."""
    for rows in torch.randperm(len(pixels)).split(batch_size):
        x = draw_bits(pixels.index_select(0, rows)).float()
        optimizer.zero_grad()
        model(x).backward()
        optimizer.step()


@torch.no_grad()
def validate(model: BareVAE, bits: Tensor, batch_size: int) -> float:
    """The ELBO of bits (N, D), float32, nats."""
    return -sum(model(x).item() * len(x) for x in bits.split(batch_size)) / len(bits)


def main() -> int:
    track, text = arguments(sys.argv)
    task = Task.from_json(text)
    if task.threads is not None:
        torch.set_num_threads(task.threads)
    torch.manual_seed(0)
    images = MNIST().load(Path(task.data_dir)).train.x.flatten(1)  # (N, D), uint8
    images = images[torch.randperm(len(images))]
    validation = draw_bits(images[: task.validation_size]).float()
    pixels = images[task.validation_size :][: task.train_size].clone()

    model = BareVAE(task)
    optimizer = torch.optim.Adam(model.parameters(), lr=task.lr, fused=True)
    track.ready({"threads": torch.get_num_threads()})
    for _ in range(task.laps):
        track.wait()
        start = Span.now()
        train_epoch(model, optimizer, pixels, task.batch_size)
        train = Span.now() - start
        elbo = validate(model, validation, task.eval_batch_size)
        track.report(Lap(len(pixels), train, Span.now() - start, elbo))
    track.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
