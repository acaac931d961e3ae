"""The cache of decoding token by token: keys and values of the tokens so far.

Shapes: B batch, M heads of keys and values, S keys, D features of a head, V of a value.
"""

from typing import NamedTuple

from torch import Tensor


class KeyValues(NamedTuple):
    """Keys and values of a memory, projected once and attended to many times."""

    key: Tensor
    """(B, M, S, D)."""
    value: Tensor
    """(B, M, S, V)."""


class KeyValueCache:
    """Keys and values of the tokens so far, of one self-attention.

    Args:
        capacity: the most tokens that it will hold.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        """Tokens in it, and the position of the next."""
        self._key: Tensor | None = None
        self._value: Tensor | None = None

    def extend(self, key: Tensor, value: Tensor) -> KeyValues:
        """Take in the next tokens' key (B, M, n, D) and value (B, M, n, V); those of all tokens so far.

        Raises:
            ValueError: there is no room left.
        """
        end = self.length + key.shape[2]
        if end > self.capacity:
            raise ValueError(f"the cache holds {self.capacity} tokens, not {end}")
        if self._key is None or self._value is None:
            self._key = key.new_empty(*key.shape[:2], self.capacity, key.shape[3])
            self._value = value.new_empty(*value.shape[:2], self.capacity, value.shape[3])
        self._key[:, :, self.length : end] = key
        self._value[:, :, self.length : end] = value
        self.length = end
        return KeyValues(self._key[:, :, :end], self._value[:, :, :end])

    def reorder(self, rows: Tensor) -> None:
        """Go on with these rows (B',) of the batch, as beam search does."""
        if self._key is None or self._value is None:
            return
        if len(rows) != len(self._key):
            self._key, self._value = self._key.index_select(0, rows), self._value.index_select(0, rows)
            return
        for kept in (self._key[:, :, : self.length], self._value[:, :, : self.length]):  # what is empty stays
            kept.copy_(kept.index_select(0, rows))
