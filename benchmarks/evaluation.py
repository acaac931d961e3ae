"""Evaluation: the importance-sampled likelihood by attelbo and by a bare loop over chunks, in turns in one process.

Both have the same weights (784-200-200-z50, an epoch of training), the same images, draw as many samples and take as
many of them at a time as attelbo finds suitable; the two estimates stand in the table. The bare loop encodes once,
draws and decodes a chunk at a time and adds up its weights.

Shapes: k samples in a chunk, B batch, Z latent dimensions, (C, H, W) image.
"""

import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from attelbo.data.loader import spread_rows
from attelbo.experiments.configuration import compose
from attelbo.experiments.evaluation import Conditions, evaluate_likelihood, suitable_chunk
from attelbo.experiments.settings import Evaluation
from attelbo.models import VariationalAutoencoder, build_data, build_model
from benchmarks.contestants.bare_loop import train_epoch
from benchmarks.contestants.command import words
from benchmarks.contestants.networks import PlainVAE, begin, images_of
from benchmarks.report import spread
from benchmarks.task import Task

BATCH = 100


def measure(folder: str, rounds: int, n_images: int, n_samples: int, train_rows: int, device: str) -> dict[str, Any]:
    """Images per second of both, their ratio over the rounds, and what they found (nats).

    Args:
        folder: with MNIST's extracted files.
        rounds: evaluations of each that count; one before them warms up.
        n_images: of the test split.
        n_samples: for each image.
        train_rows: rows of the epoch of training.
        device: cpu or cuda.
    """
    task = Task(
        name="784-200-200-z50 tanh",
        network="mlp",
        hidden=(200, 200),
        latent_dim=50,
        activation="tanh",
        threads=1,
        laps=1,
        train_size=train_rows,
        validation_size=400,
        data_dir=folder,
        device="cuda" if device == "cuda" else "cpu",
    )
    begin(task)
    plain = PlainVAE(task).to(device)
    optimizer = torch.optim.Adam(plain.parameters(), lr=task.lr, fused=True)
    train_epoch(plain, optimizer, images_of(task)[0].to(device), task)
    config = compose("train", words(task, Path(folder))[1:]).config
    data = build_data(config)
    model = with_weights_of(plain, build_model(config, data)).to(device).eval()
    x = data.materialize(spread_rows(n_images, data.n_rows("test"), torch.device(device)), "test").x

    where = torch.device(device, 0) if device == "cuda" else torch.device(device)
    chunk = suitable_chunk(BATCH * x[0].numel(), where)
    settings = Evaluation(n_samples, n_images, BATCH, chunk, checkpoint="last")

    def ours() -> float:
        return evaluate_likelihood(model, data, Conditions("test", settings, device=where))["test/nll"]

    def bare() -> float:
        return float(torch.cat([bare_nll(plain, batch, n_samples, chunk) for batch in x.split(BATCH)]).mean())

    found: dict[str, list[float]] = {"attelbo": [], "bare loop": []}
    rates: dict[str, list[float]] = {"attelbo": [], "bare loop": []}
    for _ in range(1 + rounds):
        for name, evaluate in (("attelbo", ours), ("bare loop", bare)):
            start = time.perf_counter()
            found[name].append(evaluate())  # read on the CPU: a GPU has finished
            rates[name].append(n_images / (time.perf_counter() - start))
    ratios = [a / b for a, b in zip(rates["attelbo"][1:], rates["bare loop"][1:], strict=True)]
    return {
        "n_images": n_images,
        "n_samples": n_samples,
        "chunk": chunk,
        "threads": torch.get_num_threads(),
        "images_per_second": {name: spread(own[1:]) for name, own in rates.items()},
        "ratio": spread(ratios),
        "nll": {name: own[-1] for name, own in found.items()},
    }


@torch.inference_mode()
def bare_nll(plain: PlainVAE, x: Tensor, n_samples: int, chunk: int) -> Tensor:
    """-log p(x) of x (B, C, H, W), (B,), nats: encoded once, ``chunk`` samples at a time."""
    mean, log_std = plain.posterior(x)  # (B, Z)
    std = log_std.exp()
    total = torch.full((len(x),), -math.inf, dtype=torch.float64, device=x.device)
    for start in range(0, n_samples, chunk):
        k = min(chunk, n_samples - start)
        noise = torch.randn(k, *mean.shape, device=x.device)
        z = torch.addcmul(mean, std, noise)
        eta = plain.decoder(z.flatten(0, 1)).unflatten(0, (k, len(x)))
        log_p_x = -F.binary_cross_entropy_with_logits(eta, x.expand_as(eta), reduction="none").sum((2, 3, 4))
        # log p(z) - log q(z|x): what both normalize by, 2 pi to the power of Z / 2, cancels.
        log_ratio = (0.5 * (noise.square() - z.square())).sum(2) + log_std.sum(1)
        total = torch.logaddexp(total, (log_p_x + log_ratio).double().logsumexp(0))
    return math.log(n_samples) - total


def with_weights_of(plain: PlainVAE, model: Any) -> VariationalAutoencoder:
    """attelbo's fully connected model with the weights of the plain one."""
    ours = [p for part in (model.encoder, model.posterior, model.decoder) for p in part.parameters()]
    with torch.no_grad():
        for own, theirs in zip(ours, plain.parameters(), strict=True):
            own.copy_(theirs)
    return model
