"""A transformer as prior over codes: the second stage of a VQ-VAE (Esser, Rombach & Ommer 2021, "Taming Transformers
for High-Resolution Image Synthesis", sec. 3.2, eq. 8-9; Chen et al. 2020, "Generative Pretraining from Pixels", for the
raster order).

    start or label, code_1, ..., code_(T-1)  -- Transformer, causal -->  p(code_t | those before it, label)

It is here, not among the priors of ``attelbo.latent``, which does not import attention.

Shapes: n samples, B batch, N = n B rows, T positions of codes, K codes, E features of a token, Y classes.
"""

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from attelbo.attention import AxialRotary, NoPosition
from attelbo.attention.layer import check_heads
from attelbo.latent import Density
from attelbo.latent.arithmetic import full_precision
from attelbo.latent.priors.autoregressive import AutoregressiveCodes, draw
from attelbo.latent.priors.base import classes_of
from attelbo.latent.spaces import Codes
from attelbo.networks.attention_parts import AttentionParts
from attelbo.networks.transformer import Transformer


class ClassConditionalCodes(AutoregressiveCodes):
    """A prior over codes that begins with one learned token, or with that of a class.

    With ``class_conditional`` :meth:`given` is p(codes|y). Without a label this is the mixture
    p(codes) = 1/Y sum_y p(codes|y), at Y times the cost.

    Args:
        space: the positions and the number of codes.
        dim: E.
        data_classes: Y, of the data; None where they have none.
        class_conditional: whether it is a prior for each class.

    Raises:
        ValueError: a prior for each class of data that have none.
    """

    def __init__(self, space: Codes, dim: int, data_classes: int | None, class_conditional: bool) -> None:
        n_classes = classes_of(data_classes, class_conditional)
        super().__init__(space, dim)
        self.data_classes = n_classes
        self.start = nn.Parameter(torch.randn(n_classes or 1, dim))

    @property
    def knows_labels(self) -> bool:
        return self.data_classes is not None

    def given(self, labels: Tensor) -> Density:
        return _Given(self, full_precision(labels).to(self.start.dtype) @ self.start) if self.knows_labels else self

    def log_prob(self, z: Tensor) -> Tensor:
        rows, classes = z.flatten(0, 1), len(self.start)
        starts = self.start.repeat(len(rows), 1)  # all classes, for each row
        log_classes = self.log_prob_after(starts, rows.repeat_interleave(classes, 0)).unflatten(0, (-1, classes))
        return (log_classes.logsumexp(-1) - math.log(classes)).unflatten(0, z.shape[:2])

    def log_prob_after(self, start: Tensor, codes: Tensor) -> Tensor:
        """log p(codes | start), (N,), nats, of codes (N, *S) after a first token (N, E)."""
        return self.log_prob_by(self.logits_after(start, codes.flatten(1)), codes.flatten(1))

    def logits(self, codes: Tensor) -> Tensor:
        assert not self.knows_labels, "what comes next depends on the class"
        return self.logits_after(self.start.expand(len(codes), -1), codes)

    def sample(self, n: int) -> Tensor:
        classes = torch.randint(len(self.start), (n,), device=self.start.device)
        return self.sample_after(self.start[classes])

    @abstractmethod
    def logits_after(self, start: Tensor, codes: Tensor) -> Tensor:
        """Unnormalized log-probabilities of the code at each position, (N, T, K), for codes (N, T) after a first token
        (N, E)."""

    @abstractmethod
    def sample_after(self, start: Tensor) -> Tensor:
        """Codes (n, *S) after a first token (n, E)."""


class AutoregressiveTransformer(ClassConditionalCodes):
    """A causal transformer that reads the codes in row-major order and predicts the next.

    Each position has a learned embedding, that of the code to be predicted; with ``axial_rotary`` queries and keys are
    also rotated by row and column. Sampling caches keys and values, so that a code costs one step of the network.

    Differs from the papers: input and output embeddings are not tied.

    Args:
        space: the positions and the number of codes.
        data_classes: Y, of the data; None where they have none.
        dim: E.
        heads: of each layer; must divide ``dim``.
        layers: of the transformer.
        dropout: on the output of each layer, in training.
        axial_rotary: whether attention encodes rows and columns.
        class_conditional: whether it is a prior for each class.

    Raises:
        ValueError: a size below 1, heads that do not divide, a dropout outside [0, 1), or a prior for each class of
            data that have none.
    """

    def __init__(
        self,
        space: Codes,
        data_classes: int | None = None,
        dim: int = 128,
        heads: int = 4,
        layers: int = 4,
        dropout: float = 0.0,
        axial_rotary: bool = False,
        class_conditional: bool = False,
    ) -> None:
        check_heads(dim, heads)
        super().__init__(space, dim, data_classes, class_conditional)
        height = space.shape[0] if len(space.shape) > 1 else 1
        size = (height, self.n_positions // height)
        position = AxialRotary(dim // heads, size) if axial_rotary else NoPosition()
        self.network = Transformer(dim, plain_attention(heads), position, causal=True, layers=layers, dropout=dropout)
        self.output = nn.Linear(dim, self.n_codes)

    def logits_after(self, start: Tensor, codes: Tensor) -> Tensor:
        before = torch.cat([start.unsqueeze(1), self.embed(codes[:, :-1])], 1)
        return self.output(self.network(before + self.position))

    @torch.no_grad()
    def sample_after(self, start: Tensor) -> Tensor:
        caches, before = self.network.caches(self.n_positions), start
        codes: list[Tensor] = []
        for place in range(self.n_positions):
            features = self.network((before + self.position[place]).unsqueeze(1), caches=caches)
            codes.append(draw(self.output(features[:, 0])))
            before = self.embed(codes[-1].unsqueeze(1), place)[:, 0]
        return torch.stack(codes, dim=1).view(len(start), *self.latent_shape)


def plain_attention(heads: int) -> AttentionParts:
    """Scaled dot products and softmax in this many heads."""
    return AttentionParts({"_target_": "attelbo.attention.MultiHeadAttention", "heads": heads}, position={})


class _Given(Density):
    """p(codes|y) of a batch of labels, whose first tokens are (B, E)."""

    def __init__(self, prior: ClassConditionalCodes, start: Tensor) -> None:
        self.prior = prior
        self.start = start

    def log_prob(self, z: Tensor) -> Tensor:
        start = self.start.expand(len(z), *self.start.shape).flatten(0, 1)
        return self.prior.log_prob_after(start, z.flatten(0, 1)).unflatten(0, z.shape[:2])

    def sample(self, n: int) -> Tensor:
        assert n == len(self.start), "one sample for each label"
        return self.prior.sample_after(self.start)
