"""Jobs of a sweep through Hydra's launcher, whichever is chosen: its own, one of ours or one of a plugin."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hydra._internal.callbacks import Callbacks
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from attelbo.building import build
from attelbo.errors import ConfigError
from attelbo.experiments.composing import is_task_word
from attelbo.experiments.hydra_keys import building

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra


def launch(
    hydra: "Hydra",
    root: str,
    shared: Sequence[str],
    jobs: Sequence[Sequence[str]],
    task: Callable[..., Any],
    ended: Callable[[int, int], None] = lambda place, code: None,
) -> list[int]:
    """Run the jobs; their exit codes, 1 for a job that returned none.

    As Hydra's own multirun, but for any list of jobs, which need not be all combinations of something.

    Args:
        hydra: that of the session.
        root: the root file.
        shared: Hydra's own words, and those that all jobs have in common.
        jobs: the overrides of each.
        task: what is run.
        ended: called when a job in another process has ended, with its place in the list and its exit code.

    Raises:
        SystemExit: a signal stopped the jobs; 128 + signal.
    """
    words = [word for word in shared if not word.startswith("hydra.mode=")]
    config = hydra.compose_config(root, [*words, "hydra.mode=MULTIRUN"], run_mode=RunMode.MULTIRUN)
    with building():
        callbacks = Callbacks(config)
    callbacks.on_multirun_start(config=config, config_name=root)
    context = HydraContext(config_loader=hydra.config_loader, callbacks=callbacks)
    settings = own_settings(config.hydra.launcher)
    if settings is None:
        with building():
            launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=config)
    else:
        launcher = build_own(settings)
        launcher.setup(hydra_context=context, task_function=task, config=config)
        launcher.ended = lambda place, returned: ended(place, _code(returned))
    try:
        returns = launcher.launch([list(filter(is_task_word, job)) for job in jobs], initial_job_idx=0)
    finally:
        callbacks.on_multirun_end(config=config, config_name=root)
    return [_code(each) for each in returns]


def own_settings(node: DictConfig) -> Mapping[str, Any] | None:
    """The settings of a launcher of ours, as plain containers; None for one of Hydra's or of a plugin, which check
    theirs themselves."""
    if not str(node.get("_target_")).startswith("attelbo."):
        return None
    plain: Any = OmegaConf.to_container(node, resolve=True)
    return plain


def build_own(settings: Mapping[str, Any]) -> Any:
    """A launcher of ours.

    Raises:
        ConfigError: a setting is out of range.
    """
    try:
        return build(settings)
    except ValueError as error:
        raise ConfigError(f"hydra.launcher.{error}") from error


def _code(returned: JobReturn) -> int:
    """The exit code of a job, 1 if it returned none, as when its process was killed."""
    if returned.status != JobStatus.COMPLETED or not isinstance(returned.return_value, int):
        return 1
    return returned.return_value
