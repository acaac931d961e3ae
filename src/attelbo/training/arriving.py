"""Values on their way from the device to the host.

Reading a value waits until the device has done all that was asked of it, and then the device waits for the host to ask
for more. A copy is made while the device goes on; who reads it a block later waits for nothing.
"""

import torch
from torch import Tensor


class Arriving:
    """A copy of a tensor that arrives on the host.

    Args:
        values: on any device; on the host they are not copied, and stay as they are until they are read.
    """

    def __init__(self, values: Tensor) -> None:
        self._values, self._ready = values.detach(), None
        if values.is_cuda:
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values.detach(), non_blocking=True)
            self._ready = torch.cuda.Event()
            self._ready.record()

    @property
    def is_under_way(self) -> bool:
        """Whether somebody who reads it may have to wait."""
        return self._ready is not None

    def read(self) -> Tensor:
        """The values on the host, once they are there."""
        if self._ready is not None:
            self._ready.synchronize()
            self._ready = None
        return self._values
