"""What happens inside a run: stepping, callbacks, loggers, checkpoints, exact resume."""

from attelbo.training.checkpoint import checkpoint_io_of
from attelbo.training.engine import seed_default_generator
from attelbo.training.planning import planned_steps, refuse_ended, refuse_other_optimizers, refuse_single_batches
from attelbo.training.stepping import BlockStepper, check_steps
from attelbo.training.trainer import attach_run, build_trainer, check_settings

__all__ = [
    "BlockStepper",
    "attach_run",
    "build_trainer",
    "check_settings",
    "check_steps",
    "checkpoint_io_of",
    "planned_steps",
    "refuse_ended",
    "refuse_other_optimizers",
    "refuse_single_batches",
    "seed_default_generator",
]
