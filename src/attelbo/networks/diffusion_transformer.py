"""A diffusion model of maps of latents whose network is a transformer over their pixels (Peebles & Xie 2023, "Scalable
Diffusion Models with Transformers", arXiv:2212.09748: DiT, with adaLN-Zero).

    z_t (N, D, h, w) -- linear, position --> tokens (N, h w, E) -- blocks, steered by t and y --> v, log (r / sigma_t)

It is here, not among the priors of ``attelbo.latent``, which does not import attention.

Shapes: N rows, (D, h, w) one map of latents, D' = D h w, E features of a token, Y classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attelbo.attention import FeedForward, MultiHeadAttention
from attelbo.checks import check_repetitions
from attelbo.latent.priors.base import classes_of
from attelbo.latent.priors.denoisers import Adaptive, AdaptiveOutput
from attelbo.latent.priors.diffusion import DiffusionPrior


class DiffusionTransformer(DiffusionPrior):
    """A diffusion prior for maps of latents; each pixel of a map is a token that attends to all others.

    Differs from the paper: no patches, since maps of latents are small; level and class are embedded as in
    :class:`~attelbo.latent.Diffusion`, the loss is its bound; and positions are learned, from N(0, I). In a small map
    all of them matter, and the sines and cosines of neighbours are much alike: with these, attention took several times
    as many steps to tell them apart (maps 2 x 4 x 4 of digits). Learning rates above 0.002 kept it from that.

    It wants more data and more steps than :class:`~attelbo.latent.Diffusion`, which sees each position by weights of
    its own.

    Args:
        latent_shape: (D, h, w).
        data_classes: Y, of the data; None where they have none.
        steps: T; each evaluation of log p(z) and each sample takes as many passes of the network.
        n_times: steps drawn for each z in training: more, and the gradient has less noise.
        dim: E.
        heads: of each layer; must divide ``dim``.
        layers: of the network.
        class_conditional: whether it is a prior for each class.

    Raises:
        ValueError: latents that are no map, a size below 1, heads that do not divide, fewer than 2 steps, or a prior
            for each class of data that have none.
    """

    def __init__(
        self,
        latent_shape: Sequence[int],
        data_classes: int | None = None,
        steps: int = 32,
        n_times: int = 4,
        dim: int = 128,
        heads: int = 4,
        layers: int = 4,
        class_conditional: bool = False,
    ) -> None:
        if len(latent_shape) != 3:
            raise ValueError(
                f"a transformer takes maps of latents, as of model/posterior=spatial_normal, and these are "
                f"{tuple(latent_shape)}; prior=diffusion takes any"
            )
        check_repetitions(layers=layers)
        n_classes = classes_of(data_classes, class_conditional)
        network = _TransformerDenoiser(latent_shape, dim, heads, layers)
        super().__init__(latent_shape, network, steps, n_times, dim, n_classes)


class _TransformerDenoiser(nn.Module):
    """z_t (N, D') with a condition (N, E) or (1, E) -> (N, 2 D')."""

    def __init__(self, latent_shape: Sequence[int], dim: int, heads: int, layers: int) -> None:
        super().__init__()
        channels, height, width = latent_shape
        self.channels = channels
        self.blocks = nn.ModuleList(_Block(dim, heads) for _ in range(layers))
        self.input = nn.Linear(channels, dim)
        self.position = nn.Parameter(torch.randn(height * width, dim))
        self.output = AdaptiveOutput(dim, 2 * channels)

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        c = c.unsqueeze(1)  # the same for all tokens
        x = self.input(z.unflatten(1, (self.channels, -1)).mT) + self.position
        for block in self.blocks:
            x = block(x, c)
        return self.output(x, c).mT.flatten(1)


class _Block(nn.Module):
    """Tokens (N, T, E) with a condition (N, 1, E) -> (N, T, E)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(dim, heads)
        self.around_attention = Adaptive(dim)
        self.feed_forward = FeedForward(dim, 4 * dim)
        self.around_feed_forward = Adaptive(dim)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        x = self.around_attention(x, c, self.attention)
        return self.around_feed_forward(x, c, self.feed_forward)
