"""The inference network of AIR: q(z|x), step by step.

Eslami et al. 2016, "Attend, Infer, Repeat: Fast Scene Understanding with Generative Models", arXiv:1603.08575, section
2.1 and figure 2.

Shapes: N rows, T steps, D dimensions of a what, S units of the LSTM, (C, H, W) image, n x n of a glimpse.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from attelbo.attention.glimpses import cut_patch
from attelbo.latent import DiagonalNormal
from attelbo.latent.arithmetic import bound_log_std, full_precision
from attelbo.latent.scheduled import Scheduled
from attelbo.models.hierarchy import split_normal
from attelbo.networks import Encoder
from attelbo.networks.glimpses import LSTMStep
from attelbo.networks.layers import initialize

WHERE = 3
"""The numbers of a where: size, center across and down."""


class Step(NamedTuple):
    """A step of inference."""

    reached: Tensor
    """1 if the objects before it are present, else 0, (N,)."""
    log_odds: Tensor
    """Of q(present), (N,)."""
    present: Tensor
    """0 or 1, (N,)."""
    q_where: DiagonalNormal
    """(N, 3)."""
    where: Tensor
    """(N, 3)."""
    q_what: DiagonalNormal
    """(N, D)."""
    what: Tensor
    """(N, D)."""
    baseline: Tensor
    """What the learning signal is expected to be, (N,), nats."""


class Choice(NamedTuple):
    """What is chosen from q: samples, or its center."""

    present: Callable[[Tensor], Tensor]
    """Log-odds (N,) -> 0 or 1, (N,)."""
    normal: Callable[[DiagonalNormal], Tensor]
    """A normal -> a value, (N, *E)."""


SAMPLES = Choice(
    lambda log_odds: (torch.rand_like(log_odds) < log_odds.sigmoid()).to(log_odds), lambda q: q.rsample(1)[0]
)
CENTERS = Choice(lambda log_odds: (log_odds > 0).to(log_odds), lambda q: q.mean)


class ObjectFinder(nn.Module):
    """Infers one object of an image after the other: whether it is present, where, and what.

    Args:
        encoder: of glimpses (C, n, n).
        data_shape: (C, H, W).
        latent_dim: D.
        hidden: S.
        steps: T.
        where_mean: of the prior of where, (3,).
        where_std: its standard deviation, (3,).
        learning: the factor of the gradient of presences, by schedule.
    """

    where_mean: Tensor
    where_log_std: Tensor

    def __init__(
        self,
        encoder: Encoder,
        data_shape: Sequence[int],
        latent_dim: int,
        hidden: int,
        steps: int,
        where_mean: Tensor,
        where_std: Tensor,
        learning: Scheduled,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.latent_dim = latent_dim
        self.steps = steps
        self.learning = learning
        self.n_pixels = math.prod(data_shape)
        self.embedding = nn.Sequential(nn.Flatten(), initialize(nn.Linear(self.n_pixels, hidden), "relu"), nn.ReLU())
        self.recurrence = LSTMStep(hidden + 1 + WHERE + latent_dim, hidden)
        self.start = nn.Parameter(torch.zeros(2, hidden))
        self.head = initialize(nn.Linear(hidden, 1 + 2 * WHERE))
        self.what = initialize(nn.Linear(math.prod(encoder.out_shape), 2 * latent_dim))
        self.expected = nn.Sequential(
            initialize(nn.Linear(2 * hidden, hidden), "relu"), nn.ReLU(), initialize(nn.Linear(hidden, 1))
        )
        self.register_buffer("where_mean", where_mean, persistent=False)
        self.register_buffer("where_log_std", where_std.log(), persistent=False)

    def forward(self, x: Tensor, choose: Choice, embedding: Tensor | None = None) -> list[Step]:
        """The steps of explaining x (N, C, H, W), whose ``embedding`` (N, S) may be known."""
        n = len(x)
        seen_whole = self.embedding(x) if embedding is None else embedding
        h, c = self.start.unsqueeze(1).expand(2, n, -1)
        z = x.new_zeros(n, 1 + WHERE + self.latent_dim)
        reached = x.new_ones(n)
        found: list[Step] = []
        for _ in range(self.steps):
            h, c = self.recurrence(torch.cat([seen_whole, z], 1), (h, c))
            log_odds, shift, log_ratio = full_precision(self.head(h)).split([1, WHERE, WHERE], 1)
            log_odds = torch.lerp(log_odds.detach(), log_odds, self.learning.value)[:, 0]
            prior = self.where_prior(shift)
            log_std = bound_log_std(prior.log_std + log_ratio)
            q_where = DiagonalNormal(prior.mean + prior.std * shift, log_std)
            present, where = reached * choose.present(log_odds), choose.normal(q_where)
            seen = cut_patch(x, place_of(where), self.encoder.in_shape[-1])
            q_what = split_normal(full_precision(self.what(self.encoder(seen).flatten(1))))
            what = choose.normal(q_what)
            # The baseline sends no gradient to the rest of the network.
            baseline = self.n_pixels * self.expected(torch.cat([seen_whole, h], 1).detach())[:, 0]
            found.append(Step(reached, log_odds, present, q_where, where, q_what, what, full_precision(baseline)))
            z = present.unsqueeze(1) * torch.cat([present.unsqueeze(1), where, what], 1)
            reached = present
        return found

    def where_prior(self, like: Tensor) -> DiagonalNormal:
        """p(where) for as many rows as there are in ``like`` (N, 3)."""
        return DiagonalNormal(self.where_mean.expand_as(like), self.where_log_std.expand_as(like))


def place_of(where: Tensor) -> Tensor:
    """where (N, 3), unconstrained, as a place: a size in 0 .. 1, a center."""
    return torch.cat([where[:, :1].sigmoid(), where[:, 1:]], 1)


def flat(steps: Sequence[Step]) -> Tensor:
    """The chosen latents, (N, T (4 + D))."""
    present = [step.present.unsqueeze(1) for step in steps]
    parts = [p * torch.cat([p, step.where, step.what], 1) for p, step in zip(present, steps, strict=True)]
    return torch.cat(parts, 1)
