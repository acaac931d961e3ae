"""What happens inside a run: stepping, callbacks, loggers, checkpoints, exact resume."""

from attelbo.training.stepping import BlockStepper, seed_default_generator
from attelbo.training.trainer import build_trainer

__all__ = ["BlockStepper", "build_trainer", "seed_default_generator"]
