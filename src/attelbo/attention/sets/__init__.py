"""Attention for sets: modules without a notion of order, for any number of elements.

Sets (B, S, E) of different sizes are padded to S elements; ``Padding(valid)`` tells elements from padding, whose
contents have no influence, not even NaN; what a module returns in its place is meaningless.
"""

from attelbo.attention.sets.blocks import ISAB, MAB, PMA, SAB
from attelbo.attention.sets.perceiver import Perceiver
from attelbo.attention.sets.slots import SlotAttention

__all__ = ["ISAB", "MAB", "PMA", "SAB", "Perceiver", "SlotAttention"]
