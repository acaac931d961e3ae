"""Jobs of a sweep through Hydra's launcher, whichever is chosen: basic, joblib, submitit."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hydra._internal.callbacks import Callbacks
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, RunMode

from attelbo.experiments.composing import is_task_word

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra


def launch(
    hydra: "Hydra", root: str, shared: Sequence[str], jobs: Sequence[Sequence[str]], task: Callable[..., Any]
) -> list[int]:
    """Run the jobs; their exit codes, 1 of one that told none.

    What Hydra's own multirun does, but for a list of jobs that need not be all combinations of something.

    Args:
        hydra: of the session.
        root: the root file.
        shared: Hydra's own words, and those that all jobs have in common.
        jobs: the overrides of each.
        task: what is run.
    """
    words = [word for word in shared if not word.startswith("hydra.mode=")]
    config = hydra.compose_config(root, [*words, "hydra.mode=MULTIRUN"], run_mode=RunMode.MULTIRUN)
    callbacks = Callbacks(config)
    callbacks.on_multirun_start(config=config, config_name=root)
    context = HydraContext(config_loader=hydra.config_loader, callbacks=callbacks)
    launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=config)
    try:
        returns = launcher.launch([list(filter(is_task_word, job)) for job in jobs], initial_job_idx=0)
    finally:
        callbacks.on_multirun_end(config=config, config_name=root)
    return [_code(each) for each in returns]


def _code(returned: JobReturn) -> int:
    """A launcher elsewhere hands back what its process could not: then there is no code."""
    if returned.status != JobStatus.COMPLETED or not isinstance(returned.return_value, int):
        return 1
    return returned.return_value
