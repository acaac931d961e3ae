"""The likelihood of texts: a softmax over the vocabulary for each token, given those before it.

    log p(x|z) = sum_t log softmax(eta_t)[x_t],   eta_t of z and x_<t (teacher forcing)

The sum is over the tokens of a text, including its end, but not over padding. Averaging over tokens instead would be
another objective, in which the KL weighs many times what it should.

Shapes: n samples, B batch, T tokens, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from attelbo.checks import check_at_least
from attelbo.latent.arithmetic import full_precision
from attelbo.latent.likelihoods.base import Likelihood


class CategoricalTokens(Likelihood):
    """p(x|z) of texts x (B, T), of logits eta (n, B, T, V).

    Args:
        length: T, the most tokens.
        n_tokens: V.
        padding: the padding token, which adds nothing.

    Raises:
        ValueError: a number below 1.
    """

    supports = frozenset({"tokens"})

    def __init__(self, length: int, n_tokens: int, padding: int) -> None:
        super().__init__((length,))
        check_at_least(1, length=length, n_tokens=n_tokens)
        self.n_parameters = n_tokens
        self.padding = padding

    @property
    def parameter_shape(self) -> tuple[int, ...]:
        """(T, V): the vocabulary comes last, as a linear layer gives it."""
        return (*self.data_shape, self.n_parameters)

    def log_prob(self, eta: Tensor, x: Tensor) -> Tensor:
        return self.log_prob_of_tokens(eta, x.expand(len(eta), -1, -1)).sum(-1)

    def log_prob_of_tokens(self, eta: Tensor, x: Tensor) -> Tensor:
        """log p of each token x (...) under eta (..., V), (...), nats; 0 of padding."""
        logits = full_precision(eta).flatten(0, -2)
        losses = F.cross_entropy(logits, x.flatten(), ignore_index=self.padding, reduction="none")
        return -losses.view(x.shape)

    def mean(self, eta: Tensor) -> Tensor:
        """Tokens have no mean: the likeliest one at each place, eta (..., V) -> (...)."""
        return eta.argmax(-1)

    def sample(self, eta: Tensor) -> Tensor:
        """A token at each place, eta (..., V) -> (...), those before it as they were given."""
        return torch.multinomial(full_precision(eta).softmax(-1).flatten(0, -2), 1).view(eta.shape[:-1])
