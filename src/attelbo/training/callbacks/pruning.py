"""Stops a job of a search that does worse than others did at the same validation.

The decision is Optuna's, as a function of the curves alone: of the jobs that were finished when this one was chosen,
and of this one so far. So it is the same in whatever process or machine the job runs, and again after a kill.
"""

from collections.abc import Sequence
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer

Curve = Sequence[float]
"""The validations of a run, in their order."""


class Pruned(Exception):  # noqa: N818 - what happened, not what went wrong
    """The run is not worth going on with."""


class Pruning(Callback):
    """Raises `Pruned` after a validation.

    Args:
        metric: what is looked at.
        direction: what is better.
        pruner: median: the best so far is worse than the median of the others' values at this validation, of at least
            5 others; successive_halving: at validation warmup, 4 warmup, 16 warmup, ... the value is not among the
            best quarter of those that came so far (Li et al. 2020).
        warmup: validations before the first decision.
        others: their curves, and whether they were pruned themselves.
        own: the curve of this run until it was interrupted.
    """

    def __init__(
        self,
        metric: str,
        direction: Literal["minimize", "maximize"],
        pruner: Literal["median", "successive_halving"],
        warmup: int,
        others: Sequence[tuple[Curve, bool]],
        own: Curve = (),
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.metric = metric
        if pruner == "median":
            rule: Any = optuna.pruners.MedianPruner(n_warmup_steps=warmup)
        else:
            rule = optuna.pruners.SuccessiveHalvingPruner(min_resource=warmup)
        study = optuna.create_study(direction=direction, pruner=rule)
        for curve, pruned in others:
            trial = study.ask()
            for step, value in enumerate(curve, 1):
                trial.report(value, step)
                if pruner == "successive_halving":
                    trial.should_prune()  # it remembers who came how far
            state = optuna.trial.TrialState.PRUNED if pruned else None
            study.tell(trial, None if pruned else curve[-1], state=state)
        self._trial, self._validations = study.ask(), 0
        for value in own:
            self.is_bad(value)

    def is_bad(self, value: float) -> bool:
        """Whether to stop after a further validation."""
        self._validations += 1
        self._trial.report(value, self._validations)
        return self._trial.should_prune()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.metric in trainer.callback_metrics:
            bad = self.is_bad(trainer.callback_metrics[self.metric].item())
            if trainer.strategy.reduce_boolean_decision(bad, all=False):
                raise Pruned
