"""A recurrent prior over codes: gated recurrent units (Cho et al. 2014, "Learning Phrase Representations using RNN
Encoder-Decoder", eq. 5-8).

Shapes: N rows, T positions, K codes, H = hidden.
"""

import torch
from torch import Tensor, nn

from attelbo.checks import check_at_least
from attelbo.latent.arithmetic import full_precision
from attelbo.latent.priors.autoregressive import AutoregressiveCodes, draw
from attelbo.latent.spaces import Codes


class AutoregressiveRecurrent(AutoregressiveCodes):
    """One layer of H gated recurrent units reads the codes in row-major order and predicts the next.

    The units are those of ``torch.nn.GRU``, written out: so replicas can be stacked, which its kernel does not allow;
    sequences of codes are short.

    Args:
        space: the positions and the number of codes.
        hidden: H.

    Raises:
        ValueError: hidden below 1.
    """

    def __init__(self, space: Codes, hidden: int = 128) -> None:
        check_at_least(1, hidden=hidden)
        super().__init__(space, hidden)
        self.of_input = nn.Linear(hidden, 3 * hidden)
        self.of_state = nn.Linear(hidden, 3 * hidden)
        self.output = nn.Linear(hidden, self.n_codes)
        nn.init.orthogonal_(self.of_state.weight)

    def logits(self, codes: Tensor) -> Tensor:
        # At the first position nothing has been read, at the others the code before.
        before = nn.functional.pad(self.embed(codes[:, :-1]), (0, 0, 1, 0))
        inputs = full_precision(self.of_input(before + self.position))  # (N, T, 3 H)
        state = inputs.new_zeros(len(codes), inputs.shape[-1] // 3)
        states: list[Tensor] = []
        for own in inputs.unbind(1):
            state = self._step(own, state)
            states.append(state)
        return self.output(torch.stack(states, dim=1))

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        before = self.code.new_zeros(n, self.code.shape[-1])
        state = torch.zeros_like(before)
        codes: list[Tensor] = []
        for place in range(self.n_positions):
            state = self._step(full_precision(self.of_input(before + self.position[place])), state)
            codes.append(draw(self.output(state)))
            before = self.embed(codes[-1].unsqueeze(1), place)[:, 0]
        return torch.stack(codes, dim=1).view(n, *self.latent_shape)

    def _step(self, inputs: Tensor, state: Tensor) -> Tensor:
        """The next state (N, H), from the input's part of the gates (N, 3 H)."""
        reset, update, new = inputs.chunk(3, dim=-1)
        of_reset, of_update, of_new = full_precision(self.of_state(state)).chunk(3, dim=-1)
        candidate = torch.tanh(new + torch.sigmoid(reset + of_reset) * of_new)
        return torch.lerp(candidate, state, torch.sigmoid(update + of_update))
