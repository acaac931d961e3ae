"""The non-local block: every pixel sees every other, in half of the channels.

Source: Wang, Girshick, Gupta & He 2018, "Non-local Neural Networks", arXiv:1711.07971, eq. 1, 3 and 6: the embedded
Gaussian, in the bottleneck form of section 3.3. Ours differs: no batch normalization before the sum, which would tie
the rows of a batch together; the last projection starts at zero instead, to the same end.

Shapes: B batch, C channels, I = C / 2 channels inside, H x W pixels, S of them (or of their pools) seen.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from attelbo.attention.kernels import KERNELS, KernelName, Mechanism, attention_weights
from attelbo.attention.layer import check_kernel
from attelbo.attention.scores import Dot
from attelbo.checks import check_at_least


class NonLocal2d(nn.Module):
    """x + W_z softmax(theta(x)^T phi(x)) g(x) over the pixels of a feature map (B, C, H, W).

    Scores are not scaled, as in the paper. The block starts as the identity. Time grows with (H W)^2 / pool^2.

    Args:
        channels: C.
        pool: keys and values are the largest of pool x pool pixels; 1: all of them (the paper's subsampling is 2).
        kernel: as in ``MultiHeadAttention``.

    Raises:
        ValueError: a size below 1, or a kernel that does not exist or cannot compute this.
    """

    def __init__(self, channels: int, *, pool: int = 1, kernel: KernelName = "auto") -> None:
        super().__init__()
        check_at_least(1, channels=channels, pool=pool)
        self.inner = max(1, channels // 2)
        self.pool = pool
        self.mechanism = Mechanism(Dot())
        self.kernel = KERNELS[check_kernel(kernel, self.mechanism, 0.0, None)]
        self.qkv = nn.Linear(channels, 3 * self.inner)
        self.output = nn.Linear(self.inner, channels)
        for projection in self.qkv.weight.chunk(3):
            nn.init.xavier_uniform_(projection)
        for zero in (self.qkv.bias, self.output.weight, self.output.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W), in channels_last order."""
        seen = self.kernel(*self.project(x), self.mechanism)
        added = self.output(seen.squeeze(1)).unflatten(1, x.shape[-2:])
        return (x.permute(0, 2, 3, 1) + added).permute(0, 3, 1, 2)

    def weights(self, x: Tensor) -> Tensor:
        """The weights of each pixel for each (largest of pool x pool), row by row: (B, 1, H W, S)."""
        query, key, _ = self.project(x)
        return attention_weights(query, key, self.mechanism)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """theta (B, 1, H W, I), phi and g (B, 1, S, I) of the pixels."""
        query, key_value = self.qkv(x.permute(0, 2, 3, 1)).split([self.inner, 2 * self.inner], -1)
        if self.pool > 1:
            largest = F.max_pool2d(key_value.permute(0, 3, 1, 2), self.pool, ceil_mode=True)
            key_value = largest.permute(0, 2, 3, 1)
        key, value = key_value.flatten(1, 2).unsqueeze(1).chunk(2, -1)
        return query.flatten(1, 2).unsqueeze(1), key, value
