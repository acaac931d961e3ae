"""Next-scale prediction: a prior over maps of codes from coarse to fine (Tian et al. 2024, "Visual Autoregressive
Modeling: Scalable Image Generation via Next-Scale Prediction", arXiv:2404.02905, sec. 3.1, eq. 4).

    p(codes) = prod_k p(codes_k | codes_1, ..., codes_(k-1))        all codes of a scale at once
    start or label, coarsen(refine(e_1)), ..., coarsen(refine(e_1) + ... + refine(e_(K-1)))  -- Transformer -->  codes_k

Shapes: N rows, K scales, n_k places of scale k, T = n_1 + ... + n_K; L places of the largest; E features; V codes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attelbo.attention import BlockCausal, NoPosition
from attelbo.attention.layer import check_heads
from attelbo.latent.priors.autoregressive import draw
from attelbo.latent.pyramid import Pyramid
from attelbo.latent.spaces import ScaledCodes
from attelbo.networks.code_transformer import ClassConditionalCodes, plain_attention
from attelbo.networks.transformer import Transformer


class NextScaleTransformer(ClassConditionalCodes):
    """A transformer that sees what coarser scales add up to, and predicts all codes of the next scale at once.

    A token attends to those of its scale and of coarser ones. Given these, the codes of a scale are independent, so
    that K passes of the network draw an image, where a code at a time takes T.

    Differs from the paper: codes have embeddings of their own, instead of a linear map of the autoencoder's codebook; a
    class is the first token only, without adaptive norms or guidance; sampling keeps no cache, so that each of the K
    passes computes the scales so far anew.

    Args:
        space: the scales and the number of codes.
        data_classes: Y, of the data; None where they have none.
        dim: E.
        heads: of each layer; must divide ``dim``.
        layers: of the transformer.
        dropout: on the output of each layer, in training.
        class_conditional: whether it is a prior for each class.

    Raises:
        ValueError: a size below 1, heads that do not divide, a dropout outside [0, 1), or a prior for each class of
            data that have none.
    """

    spaces = (ScaledCodes,)

    def __init__(
        self,
        space: ScaledCodes,
        data_classes: int | None = None,
        dim: int = 128,
        heads: int = 4,
        layers: int = 4,
        dropout: float = 0.0,
        class_conditional: bool = False,
    ) -> None:
        check_heads(dim, heads)
        super().__init__(space, dim, data_classes, class_conditional)
        self.pyramid = Pyramid(space.sizes)
        self.network = Transformer(dim, plain_attention(heads), NoPosition(), layers=layers, dropout=dropout)
        self.output = nn.Linear(dim, self.n_codes)

    def logits_after(self, start: Tensor, codes: Tensor) -> Tensor:
        return self.logits_to_next(start, self.pyramid.split(codes)[:-1])

    def logits_to_next(self, start: Tensor, codes: Sequence[Tensor]) -> Tensor:
        """Unnormalized log-probabilities (N, n_1 + ... + n_(k+1), V) of k scales of codes (N, n_i), and of the next."""
        lengths = self.pyramid.lengths[: len(codes) + 1]
        seen, tokens = start.new_zeros(()), [start.unsqueeze(1).expand(-1, lengths[0], -1)]
        for k, own in enumerate(codes):
            seen = seen + self.pyramid.refine(self.embed(own), k)  # (N, L, E)
            tokens.append(self.pyramid.coarsen(seen, k + 1))
        x = torch.cat(tokens, 1) + self.position[: sum(lengths)]
        return self.output(self.network(x, mask=BlockCausal(lengths)))

    @torch.no_grad()
    def sample_after(self, start: Tensor) -> Tensor:
        codes: list[Tensor] = []
        for length in self.pyramid.lengths:
            logits = self.logits_to_next(start, codes)[:, -length:]
            codes.append(draw(logits.flatten(0, 1)).unflatten(0, (-1, length)))
        return torch.cat(codes, 1)
