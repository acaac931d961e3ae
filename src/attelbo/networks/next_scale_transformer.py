"""Next-scale prediction: a prior over maps of codes from coarse to fine (Tian et al. 2024, "Visual Autoregressive
Modeling: Scalable Image Generation via Next-Scale Prediction", arXiv:2404.02905, sec. 3.1, eq. 4).

    p(codes) = prod_k p(codes_k | codes_1, ..., codes_(k-1))        all codes of a scale at once
    start or label, coarsen(refine(e_1)), ..., coarsen(refine(e_1) + ... + refine(e_(K-1)))  -- Transformer -->  codes_k

Shapes: N rows, K scales, n_k places of scale k, T = n_1 + ... + n_K; L places of the largest; E features; V codes.
"""

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
    that K passes of the network draw an image, where a code at a time takes T; keys and values of coarser scales are
    cached.

    Differs from the paper: codes have embeddings of their own, instead of a linear map of the autoencoder's codebook; a
    class is the first token only, without adaptive norms or guidance.

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
        seen, tokens = start.new_zeros(()), [self._first_tokens(start)]
        for k, own in enumerate(self.pyramid.split(codes)[:-1]):
            seen, following = self._next_tokens(seen, own, k)
            tokens.append(following)
        x = torch.cat(tokens, 1) + self.position
        return self.output(self.network(x, mask=BlockCausal(self.pyramid.lengths)))

    @torch.no_grad()
    def sample_after(self, start: Tensor) -> Tensor:
        caches = self.network.caches(self.n_positions)
        seen, tokens, codes = start.new_zeros(()), self._first_tokens(start), list[Tensor]()
        for k, position in enumerate(self.position.split(self.pyramid.lengths)):
            if k > 0:
                seen, tokens = self._next_tokens(seen, codes[-1], k - 1)
            logits = self.output(self.network(tokens + position, caches=caches))
            codes.append(draw(logits.flatten(0, 1)).view(logits.shape[:2]))
        return torch.cat(codes, 1)

    def _first_tokens(self, start: Tensor) -> Tensor:
        """Those of the coarsest scale, (N, n_1, E), after a first token (N, E)."""
        return start.unsqueeze(1).expand(-1, self.pyramid.lengths[0], -1)

    def _next_tokens(self, seen: Tensor, codes: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """What scales up to k add up to, (N, L, E), given those before it and its codes (N, n_k); and the tokens of the
        next scale, (N, n_(k+1), E)."""
        seen = seen + self.pyramid.refine(self.embed(codes), k)
        return seen, self.pyramid.coarsen(seen, k + 1)
