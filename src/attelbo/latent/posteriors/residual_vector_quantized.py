"""Residual vector quantization (Zeghidour et al. 2021, "SoundStream", arXiv:2107.03312, sec. III-C, algorithm 1).

Shapes: B batch, (H, W) places, Q codebooks, D = latent_dim.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attelbo.checks import check_repetitions
from attelbo.latent.codebook import Codebook
from attelbo.latent.posteriors.quantizing import QuantizingPosterior, codes_at_places, straight_through
from attelbo.latent.posteriors.vector_quantized import make_codebook


class ResidualVectorQuantizedPosterior(QuantizingPosterior):
    """Q codebooks in a row, each for the residual of those before it: z = e_1 + ... + e_Q, and K^Q values at each
    place.

    Differs from the paper: the codebooks are initialized from the first minibatch, not by k-means; all Q are used in
    every step (no quantizer dropout, which serves several bit rates with one model).

    Args:
        in_shape: of the encoder's output, (C,) or (C, H, W).
        latent_dim: D.
        n_codes: K, of each codebook.
        n_codebooks: Q.
        commitment: the weight of |v_q - sg(e_q)|^2 for each residual v_q.
        decay: of the moving averages that are the codebooks; None: they are learned by gradient.
        restart_below: the fraction of the mean use below which a code is restarted; 0: never.

    Raises:
        ValueError: latent_dim or n_codebooks below 1; else as the codebooks.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        latent_dim: int,
        n_codes: int = 64,
        n_codebooks: int = 4,
        commitment: float = 0.25,
        decay: float | None = 0.99,
        restart_below: float = 0.1,
    ) -> None:
        check_repetitions(n_codebooks=n_codebooks)
        super().__init__(in_shape, latent_dim, codes_at_places(in_shape, n_codebooks, n_codes, n_codebooks))
        self.codebooks = nn.ModuleList(
            make_codebook(n_codes, latent_dim, commitment, decay, restart_below) for _ in range(n_codebooks)
        )

    def at_step(self, step: int, total_steps: int) -> None:
        for codebook in self._codebooks():
            codebook.at_step(step)

    def quantize(self, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        residual, codes, penalties = v, [], []
        for codebook in self._codebooks():
            nearest = codebook(residual)
            residual = residual - nearest.vectors
            codes.append(nearest.codes)
            penalties.append(nearest.penalty)
        return straight_through(v, v - residual), torch.stack(codes, dim=-1), torch.stack(penalties).sum(0)

    def look_up(self, codes: Tensor) -> Tensor:
        by_book = self.by_place(codes).unbind(-1)
        vectors = [book.look_up(own) for book, own in zip(self._codebooks(), by_book, strict=True)]
        return torch.stack(vectors).sum(0)

    def _codebooks(self) -> list[Codebook]:
        return [codebook for codebook in self.codebooks if isinstance(codebook, Codebook)]
