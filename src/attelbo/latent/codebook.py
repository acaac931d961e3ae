"""A codebook: K vectors, to the nearest of which each input vector is quantized.

van den Oord, Vinyals & Kavukcuoglu 2017, "Neural Discrete Representation Learning", eq. 1-3, and appendix A.1 for the
moving averages; dead codes are restarted as in Dhariwal et al. 2020, "Jukebox", sec. 3.1.

Shapes: M input vectors of D dimensions; K codes.
"""

from typing import NamedTuple

import torch
from torch import Tensor, distributed, nn

from attelbo.checks import check_at_least, check_below_one, check_not_negative

_SMALLEST = 1e-5
"""The smallest count by which a sum is divided: a code that was never used stays where it is."""


class Nearest(NamedTuple):
    """The quantization of vectors v (..., D)."""

    vectors: Tensor
    """e_k, the nearest codes, (..., D); no gradient reaches v through them."""
    codes: Tensor
    """k, (...), int64."""
    penalty: Tensor
    """The term of the training loss for each v, (...)."""


class Codebook(nn.Module):
    """K vectors e_k, learned by gradient: the penalty is |sg(v) - e|^2 + commitment |v - sg(e)|^2 (eq. 3).

    Args:
        n_codes: K.
        dim: D.
        commitment: the weight beta of the term that draws v to its code.

    Raises:
        ValueError: n_codes below 2, or a negative commitment.
    """

    embedding: Tensor
    """(K, D)."""

    def __init__(self, n_codes: int, dim: int, commitment: float) -> None:
        super().__init__()
        check_at_least(2, n_codes=n_codes)
        check_not_negative(commitment=commitment)
        self.commitment = commitment
        self._add(torch.randn(n_codes, dim) / dim**0.5)

    def _add(self, embedding: Tensor) -> None:
        self.embedding = nn.Parameter(embedding)

    def forward(self, v: Tensor) -> Nearest:
        codes = self.choose(v)
        e = self.look_up(codes)
        penalty = self.commitment * (v - e.detach()).square().sum(-1) + (v.detach() - e).square().sum(-1)
        return Nearest(e.detach(), codes, penalty)

    @torch.no_grad()
    def choose(self, v: Tensor) -> Tensor:
        """k of the vectors nearest to v (..., D): (...), int64."""
        return nearest(v.flatten(0, -2), self.embedding).view(v.shape[:-1])

    def look_up(self, codes: Tensor) -> Tensor:
        """e_k of codes (...): (..., D)."""
        return nn.functional.embedding(codes, self.embedding)

    def at_step(self, step: int) -> None:
        """Called before each optimizer step with its number."""


class MovingCodebook(Codebook):
    """K vectors e_k, each the moving average of the v nearest to it; the penalty is commitment |v - e|^2.

        N_k <- decay N_k + (1 - decay) n_k        m_k <- decay m_k + (1 - decay) sum v        e_k = m_k / N_k

    with n_k vectors nearest to e_k in a step. A code whose N_k is below ``restart_below`` times the mean of n is
    restarted at a random v of the step, with that mean as its N_k.

    A step's sums are accumulated over all parts of its minibatch and all processes, and move the codebook when the next
    step begins, so that it does not matter into how many parts a minibatch is split. All of it stays in buffers,
    without a synchronization.

    Differs from the paper: N and m begin at zero, so that the first step moves codes to the data; N is not smoothed,
    since dead codes are restarted.

    Args:
        n_codes: K.
        dim: D.
        commitment: the weight beta of the term that draws v to its code.
        decay: of the moving averages.
        restart_below: the fraction of the mean use below which a code is restarted; 0: never.

    Raises:
        ValueError: n_codes below 2, a negative commitment, a decay or restart_below outside of [0, 1).
    """

    counts: Tensor
    sums: Tensor
    step_counts: Tensor
    step_sums: Tensor
    step_vectors: Tensor
    step: Tensor
    gathered: Tensor

    def __init__(
        self, n_codes: int, dim: int, commitment: float, decay: float = 0.99, restart_below: float = 0.1
    ) -> None:
        super().__init__(n_codes, dim, commitment)
        check_below_one(decay=decay, restart_below=restart_below)
        self.decay = decay
        self.restart_below = restart_below
        for name, shape in (("counts", ()), ("sums", (dim,))):
            self.register_buffer(name, torch.zeros(n_codes, *shape))
            self.register_buffer(f"step_{name}", torch.zeros(n_codes, *shape))
        self.register_buffer("step_vectors", torch.zeros(n_codes, dim))
        # The current optimizer step, and the one that the sums belong to.
        self.register_buffer("step", torch.tensor(-1))
        self.register_buffer("gathered", torch.tensor(-1))

    def _add(self, embedding: Tensor) -> None:
        self.register_buffer("embedding", embedding)

    def at_step(self, step: int) -> None:
        self.step.fill_(step)

    def forward(self, v: Tensor) -> Nearest:
        codes = self.choose(v)
        e = self.look_up(codes)
        return Nearest(e, codes, self.commitment * (v - e).square().sum(-1))

    @torch.no_grad()
    def choose(self, v: Tensor) -> Tensor:
        """As of every codebook; in training the averages are moved first, and take these vectors in."""
        if self.training:
            self._move()
        rows = v.detach().flatten(0, -2)
        codes = nearest(rows, self.embedding)
        if self.training:
            self._gather(rows, codes)
        return codes.view(v.shape[:-1])

    def _move(self) -> None:
        """If another step has begun, move the averages by the sums of the last one, and clear these."""
        begun = self.step != self.gathered
        counts = torch.lerp(self.step_counts, self.counts, self.decay)
        sums = torch.lerp(self.step_sums, self.sums, self.decay)
        mean = self.step_counts.mean()
        dead = counts < self.restart_below * mean
        counts = torch.where(dead, mean, counts)
        sums = torch.where(dead.unsqueeze(-1), mean * self.step_vectors, sums)
        moved = torch.where(
            (counts > _SMALLEST).unsqueeze(-1), sums / counts.clamp_min(_SMALLEST).unsqueeze(-1), self.embedding
        )
        for buffer, value in ((self.counts, counts), (self.sums, sums), (self.embedding, moved)):
            buffer.copy_(torch.where(begun, value, buffer))
        for buffer in (self.step_counts, self.step_sums):
            buffer.copy_(torch.where(begun, torch.zeros_like(buffer), buffer))
        self.gathered.copy_(self.step)

    def _gather(self, v: Tensor, codes: Tensor) -> None:
        """Count the vectors v (M, D) of each code (M,) and add them up, over all processes."""
        n_codes = len(self.embedding)
        chosen = (codes.unsqueeze(-1) == torch.arange(n_codes, device=v.device)).to(v.dtype)  # (M, K)
        with torch.autocast(v.device.type, enabled=False):
            sums = chosen.mT @ v
        counts = chosen.sum(0)
        some = v[torch.randint(len(v), (n_codes,), device=v.device)]
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(counts)
            distributed.all_reduce(sums)
            distributed.broadcast(some, 0)
        self.step_counts.add_(counts)
        self.step_sums.add_(sums)
        self.step_vectors.copy_(some)


def nearest(v: Tensor, embedding: Tensor) -> Tensor:
    """Which of the embedding's rows (K, D) is nearest to each of v (M, D): (M,)."""
    # |v - e|^2 less |v|^2, which is the same for all. Autocast would round away the differences between codes.
    with torch.autocast(v.device.type, enabled=False):
        distances = torch.addmm(0.5 * embedding.square().sum(-1), v, embedding.mT, alpha=-1)
    return distances.argmin(-1)
