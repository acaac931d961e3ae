"""Many small runs at once: N replicas in one process, whose optimizer steps are computed together as one stacked model.

group       N runs in N threads, one at a time, which gather their blocks of minibatches
steps       the optimizer steps of such blocks, stacked
stack       N models of one structure as one
adam        their optimizers as one
functions   torch's functions inside the stacked model: each replica with its own noise
"""

from attelbo.training.replicas.functions import NotStackableError
from attelbo.training.replicas.group import Group, Seat, refused
from attelbo.training.replicas.stack import differing_numbers
from attelbo.training.replicas.steps import check_stackable

__all__ = ["Group", "NotStackableError", "Seat", "check_stackable", "differing_numbers", "refused"]
