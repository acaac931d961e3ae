"""Slot attention: slots compete for the elements of a set.

Source: Locatello et al. 2020, "Object-Centric Learning with Slot Attention", arXiv:2006.15055, algorithm 1. Learned
beginnings: Jia, Liu & Huang 2023, "Improving Object-centric Learning with Query Optimization", arXiv:2210.08990, of
which the straight-through gradient is not here.

Shapes: B batch, S elements, E' features of an element, K slots, E features of a slot.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attelbo.attention.masks import Padding
from attelbo.attention.sets.padding import without_padding
from attelbo.checks import check_at_least, check_repetitions

_SHARE = 1e-8
"""Added to every share, so that the weights of a slot that wins nothing can still be normalized."""


class SlotAttention(nn.Module):
    """Slots that begin as draws from N(mean, std^2), the same for all, or as learned vectors, one for each, and are
    updated several times by the elements that they have won.

        a = softmax over slots of k . q / sqrt(E),   u_k = sum_s a_sk v_s / sum_s a_sk,   slot <- GRU(u, slot)
        slot <- slot + MLP(norm(slot))

    Equivariant to the order in which slots begin, invariant to that of the elements; the number of drawn slots may
    differ between calls. The draw is made in evaluation too.

    Args:
        dim: E.
        memory_dim: E'; E if None.
        n_slots: K.
        iterations: how often slots are changed.
        hidden: units of the MLP; 2 E if None, as in the paper.
        learned: whether slots begin as learned vectors; else they are drawn, as in the paper.

    Raises:
        ValueError: a size below 1.
    """

    def __init__(
        self,
        dim: int,
        memory_dim: int | None = None,
        *,
        n_slots: int = 7,
        iterations: int = 3,
        hidden: int | None = None,
        learned: bool = False,
    ) -> None:
        super().__init__()
        memory_dim = dim if memory_dim is None else memory_dim
        hidden = 2 * dim if hidden is None else hidden
        check_at_least(1, dim=dim, memory_dim=memory_dim, n_slots=n_slots, hidden=hidden)
        check_repetitions(iterations=iterations)
        self.n_slots = n_slots
        self.iterations = iterations
        self.scale = dim**-0.5
        self.learned = learned
        if learned:
            self.beginnings = nn.Parameter(torch.randn(n_slots, dim))
        else:
            self.mean = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, dim)).squeeze(0))
            self.log_std = nn.Parameter(torch.zeros(dim))
        self.element_norm, self.slot_norm = nn.LayerNorm(memory_dim), nn.LayerNorm(dim)
        self.key_value = nn.Linear(memory_dim, 2 * dim, bias=False)
        self.query = nn.Linear(dim, dim, bias=False)
        for projection in (*self.key_value.weight.chunk(2), self.query.weight):
            nn.init.xavier_uniform_(projection)
        self.from_won, self.from_slot = nn.Linear(dim, 3 * dim), nn.Linear(dim, 3 * dim)
        self.mlp = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, dim))

    def initial(self, batch: int, n_slots: int | None = None) -> Tensor:
        """Initial slots, (B, K, E); where they are drawn, a draw for each row.

        Raises:
            ValueError: another number of them than was learned.
        """
        if self.learned:
            if n_slots not in (None, self.n_slots):
                raise ValueError(f"n_slots must be {self.n_slots}, the number of learned slots, got {n_slots}")
            return self.beginnings.expand(batch, -1, -1)
        noise = torch.randn(
            batch, n_slots or self.n_slots, len(self.mean), dtype=self.mean.dtype, device=self.mean.device
        )
        return torch.addcmul(self.mean, self.log_std.exp(), noise)

    def forward(self, x: Tensor, *, mask: Padding | None = None, slots: Tensor | None = None) -> Tensor:
        """A set (B, S, E') -> slots (B, K, E).

        Args:
            x: the elements.
            mask: which of them are there.
            slots: what slots begin with, (B, K, E); :meth:`initial` if None.
        """
        key, value = self._keys_values(x, mask)
        state = self.initial(len(x)) if slots is None else slots
        for _ in range(self.iterations):
            shares = self._shares(key, state, mask)
            won = shares @ value / shares.sum(-1, keepdim=True).clamp_min(_SHARE)
            state = self._update(won, state)
            state = state + self.mlp(state)
        return state

    def shares(self, x: Tensor, slots: Tensor, *, mask: Padding | None = None) -> Tensor:
        """The share of each element that each of the slots (B, K, E) gets: (B, K, S), which sums to one over the
        slots."""
        return self._shares(self._keys_values(x, mask)[0], slots, mask)

    def _keys_values(self, x: Tensor, mask: Padding | None) -> tuple[Tensor, ...]:
        """Keys and values (B, S, E) each."""
        return self.key_value(self.element_norm(without_padding(x, mask))).chunk(2, -1)

    def _update(self, won: Tensor, slots: Tensor) -> Tensor:
        """A step of a gated recurrent unit (Cho et al. 2014); torch's own cell cannot be stacked over replicas."""
        new, old = self.from_won(won).chunk(3, -1), self.from_slot(slots).chunk(3, -1)
        reset, keep = (new[0] + old[0]).sigmoid(), (new[1] + old[1]).sigmoid()
        candidate = (new[2] + reset * old[2]).tanh()
        return candidate + keep * (slots - candidate)

    def _shares(self, key: Tensor, slots: Tensor, mask: Padding | None) -> Tensor:
        scores = self.scale * self.query(self.slot_norm(slots)) @ key.mT  # (B, K, S)
        shares = F.softmax(scores, 1) + _SHARE
        return shares if mask is None else shares.masked_fill(~mask.valid.unsqueeze(1), 0.0)
