"""A split as few tensors in their compact type on the training device; a batch is one gather from each.

Shapes: N rows, B batch, (C, H, W) image.
"""

import hashlib
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from attelbo.data.batch import Batch
from attelbo.data.binarize import draw_bits
from attelbo.data.nuisances import Nuisance, with_nuisance

_ROWS_AT_ONCE = 4096
"""When bits are unpacked to be counted."""


class ResidentSplit(ABC):
    """Tensors, namely all attributes that are one, which move once to the device where batches are first made."""

    _checksum: str | None = None

    @property
    def repeats(self) -> bool:
        """Whether the same rows are the same batch whenever they are asked for; subclasses where nothing is drawn anew
        say so."""
        return False

    @abstractmethod
    def __len__(self) -> int:
        """Rows."""

    @property
    def lengths(self) -> Tensor | None:
        """What padded rows are sorted by, (N,) int64 on the CPU; None: all rows are equally long."""
        return None

    def crops(self, device: torch.device) -> bool:
        """Whether the shape of a batch on this device depends on which rows are in it, as that of padded ones does on
        a CPU."""
        return device.type == "cpu" and self.lengths is not None

    def alike(self, index: Tensor) -> Tensor:
        """These rows (B,), sorted so that neighbours are of similar length: as they are, where all are."""
        lengths = self.lengths
        return index if lengths is None else index[lengths.to(index.device)[index].argsort(stable=True)]

    def to(self, device: torch.device) -> None:
        """Move everything to the device; nothing happens if it is there already."""
        for name, tensor in self._tensors().items():
            if tensor.device != device:
                setattr(self, name, tensor.to(device))

    @abstractmethod
    def materialize(self, index: Tensor) -> Batch:
        """The rows ``index`` (B,) as a batch on the index's device. Random parts use its default generator."""

    def checksum(self) -> str:
        """SHA-256 of the bytes, as they are stored here."""
        if self._checksum is None:  # they never change, and replicas ask all for it
            digest = hashlib.sha256()
            for tensor in self._tensors().values():
                digest.update(tensor.cpu().contiguous().numpy().data)
            self._checksum = digest.hexdigest()
        return self._checksum

    def _tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}


class ImageSplit(ResidentSplit):
    """Bytes and labels.

    Args:
        x: (N, C, H, W) uint8; with ``bits`` the last dimension holds eight pixels in each byte, the first
            one in the highest bit, as ``numpy.packbits`` makes them.
        y: labels (N,) or factors (N, F), int64, or None.
        scale: the byte in x that stands for 1.0: 255 for grey levels, 1 for what is binary already.
        draw: draw each pixel anew from Bernoulli(x / 255) whenever a batch is made.
        flip: mirror each image left to right with probability one half.
        crop: move each image by up to so many pixels up or down and left or right; what comes in is black.
        bits: x is packed, eight pixels in a byte.
        segments: the object that each pixel belongs to, (N, H, W) int8, -1 for the background, of images that are not
            mirrored.
        nuisance: what is added to the bits of an image of one channel, which makes grey levels of three.
        purpose: the nuisance is a function of the row and of this, such as the split's name; drawn anew if None.
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor | None,
        scale: int = 255,
        draw: bool = False,
        flip: bool = False,
        crop: int = 0,
        bits: bool = False,
        segments: Tensor | None = None,
        nuisance: Nuisance = "none",
        purpose: str | None = None,
    ) -> None:
        self.x = x.contiguous()
        self.y = y
        self.scale = scale
        self.draw = draw
        self.flip = flip
        self.crop = crop
        self.bits = bits
        self.segments = segments
        self.nuisance: Nuisance = nuisance
        self.purpose = purpose

    @property
    def repeats(self) -> bool:
        drawn = self.nuisance != "none" and self.purpose is None
        return not (self.draw or self.flip or self.crop or drawn)

    def __len__(self) -> int:
        return len(self.x)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel as it is stored, (C,) each, float64, without a nuisance."""
        x = unpack_bits(self.x) if self.bits else self.x
        levels = torch.arange(256, dtype=torch.float64) / self.scale
        # Counted, not summed: exact, and the bytes stay bytes.
        counts = torch.stack([channel.flatten().bincount(minlength=256) for channel in x.unbind(1)]).cpu().double()
        mean = (counts @ levels) / counts.sum(1)
        square = (counts @ levels.square()) / counts.sum(1)
        return mean, (square - mean.square()).clamp(min=0).sqrt()

    def mean(self) -> Tensor:
        """The mean of all rows as they are stored, (C, H, W), float64, without a nuisance."""
        chunks = (unpack_bits(x) if self.bits else x for x in self.x.split(_ROWS_AT_ONCE))
        return torch.stack([x.sum(0) for x in chunks]).sum(0).double() / (len(self) * self.scale)

    def materialize(self, index: Tensor) -> Batch:
        self.to(index.device)
        # index_select copies whole rows; x[index] of uint8 takes 4 to 14 times as long on a CPU.
        x = self.x.index_select(0, index)
        if self.bits:
            x = unpack_bits(x)
        if self.flip:
            x = mirror_some(x)
        if self.crop:
            x = moved_at_random(x, self.crop)
        scale = self.scale
        if self.draw:
            x, scale = draw_bits(x), 1
        if self.nuisance != "none":
            x = with_nuisance(x, self.nuisance, None if self.purpose is None else index, self.purpose or "")
            scale = 255
        x = x.float()
        if scale != 1:
            x.div_(scale)
        y, segments = (None if t is None else t.index_select(0, index) for t in (self.y, self.segments))
        return Batch(x, y, index, None if segments is None else segments.long())


def mirror_some(x: Tensor) -> Tensor:
    """Each image (B, C, H, W) left to right with probability one half."""
    mirrored = torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5
    return torch.where(mirrored, x.flip(-1), x)


def moved_at_random(x: Tensor, most: int) -> Tensor:
    """Each image of x (B, C, H, W), uint8, moved by -most .. most pixels along either side, black where nothing is left
    of it: the same as a crop at random of the padded image (Krizhevsky, Sutskever & Hinton 2012, section 4.1)."""
    _, channels, height, width = x.shape
    padded = torch.nn.functional.pad(x, (most,) * 4)
    top, left = torch.randint(2 * most + 1, (2, len(x), 1), device=x.device)
    rows = top + torch.arange(height, device=x.device)  # (B, H)
    columns = left + torch.arange(width, device=x.device)  # (B, W)
    places = rows.unsqueeze(2) * padded.shape[-1] + columns.unsqueeze(1)  # (B, H, W) of the padded image's pixels
    places = places.view(len(x), 1, -1).expand(-1, channels, -1)
    return padded.flatten(2).gather(2, places).view(x.shape)


def unpack_bits(x: Tensor) -> Tensor:
    """(..., W / 8) bytes to (..., W) zeros and ones, the highest bit first: the inverse of ``numpy.packbits``."""
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=x.device)
    return x.unsqueeze(-1).bitwise_right_shift(shifts).bitwise_and_(1).flatten(-2)
