"""What encoders and decoders are: networks between data and latents, of any shape.

Shapes: B batch, N = K B rows of latents, F features, E one latent, (P C, H, W) the parameters of a
likelihood, P for each dimension of x.
"""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Encoder(nn.Module, ABC):
    """x (B, *in_shape) -> features h (B, *out_shape), the input of the posterior's head.

    Subclasses take ``in_shape`` first, given by the model. In evaluation rows of a batch do not influence each other:
    q(z|x) is a function of its own x. In training they do only with batch normalization.
    """

    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    """F: a vector (D,) or a feature map (D, H, W)."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor: ...


class Decoder(nn.Module, ABC):
    """z (N, *in_shape) -> eta (N, *out_shape), the parameters of the likelihood, unbounded.

    Subclasses take ``in_shape`` (E) and ``out_shape`` (P * C, H, W) first, given by the model. A decoder
    depends on these and on its own arguments only, never on the encoder.
    """

    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    output: nn.Module
    """The last layer, which gives eta."""

    @abstractmethod
    def forward(self, z: Tensor) -> Tensor: ...
