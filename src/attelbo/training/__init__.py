"""What happens inside a run: stepping, callbacks, loggers, checkpoints, exact resume."""

from attelbo.training.engine import seed_default_generator
from attelbo.training.stepping import BlockStepper
from attelbo.training.trainer import build_trainer

__all__ = ["BlockStepper", "build_trainer", "seed_default_generator"]
