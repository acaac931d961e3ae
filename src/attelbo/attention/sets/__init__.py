"""Attention for sets: modules without a notion of order, for any number of elements.

Sets (B, S, E) of different sizes are filled up to S elements; ``Padding(valid)`` says which are there. What is in the
place of the others has no influence, not even NaN; what a module returns in their place is meaningless.
"""

from attelbo.attention.sets.blocks import ISAB, MAB, PMA, SAB
from attelbo.attention.sets.perceiver import Perceiver
from attelbo.attention.sets.slots import SlotAttention

__all__ = ["ISAB", "MAB", "PMA", "SAB", "Perceiver", "SlotAttention"]
