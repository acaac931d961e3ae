"""All loggers of a run: made, used and closed together."""

import inspect
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any

from lightning.pytorch.loggers import Logger

from attelbo.building import Spec, arguments_of, build, flatten, lacking, locate
from attelbo.errors import ConfigError, UserError, one_line
from attelbo.training.loggers.base import Board, RunInfo
from attelbo.training.loggers.metrics_csv import CsvLogger
from attelbo.training.media import Animation, Work

_GIVEN = {"run", "save_dir"}


def build_loggers(nodes: Mapping[str, Spec], run: RunInfo) -> list[Logger]:
    """The loggers of a run, from the nodes of ``conf/logger``.

    metrics.csv is written whenever anything is logged at all: only ``logger=none``, an empty mapping, is silent.

    Args:
        nodes: Name -> node with its own keys; null is no logger. A constructor that requires a ``run`` is given it; any
            other logger, such as Lightning's own, is given the run's folder as ``save_dir`` and then the configuration,
            and is made for the training only.
        run: The run.

    Raises:
        UserError: one cannot be made: its package is not installed, or an argument is out of range.
    """
    asked = {name: node for name, node in nodes.items() if node is not None}
    loggers = [_built(name, node, run) for name, node in asked.items() if _needs_run(node) or not run.part]
    if loggers and not any(isinstance(logger, CsvLogger) for logger in loggers):
        loggers.insert(0, CsvLogger(run))
    return loggers


def check_loggers(nodes: Mapping[str, Spec]) -> None:
    """Raise ConfigError where a node does not name a logger, or lacks an argument that its constructor requires. No
    logger is made, since some connect to a server at once."""
    for name, node in nodes.items():
        if node is None:
            continue
        target: Any = locate(node["_target_"])
        if inspect.isclass(target) and not issubclass(target, Logger):
            raise ConfigError(f"logger.{name}: {node['_target_']} is no lightning.pytorch.loggers.Logger")
        if missing := sorted(lacking(node, _GIVEN)):
            raise ConfigError(f"logger.{name}: {node['_target_']} needs {' and '.join(missing)}")


def _built(name: str, node: Spec, run: RunInfo) -> Logger:
    parameters, needs_run = arguments_of(locate(node["_target_"])), _needs_run(node)
    given = {"run": run} if needs_run else {"save_dir": str(run.directory)}
    try:
        logger = build(node, **{key: value for key, value in given.items() if key in parameters and key not in node})
        if not needs_run:
            logger.log_hyperparams(dict(run.config))
    except (ImportError, TypeError, ValueError) as error:
        raise UserError(f"logger.{name}: {one_line(error)} [{node['_target_']}]") from error
    return logger


def _needs_run(node: Spec) -> bool:
    """Whether its constructor requires a ``run``; the optional ``run`` of Neptune's is something else."""
    run = arguments_of(locate(node["_target_"])).get("run")
    return run is not None and run.default is run.empty


def finish_loggers(loggers: Iterable[Logger], exit_code: int, state: str) -> None:
    """Close every logger; called in a ``finally``.

    All are closed even if one of them fails to. If they were not, the next job of the same process would go on writing
    into this W&B run, and a failed run would be shown as finished.

    Args:
        loggers: those of a run.
        exit_code: what the process will exit with.
        state: done, interrupted, pruned, failed.
    """
    with ExitStack() as stack:
        for logger in loggers:
            if isinstance(logger, Board):
                stack.callback(logger.finish, exit_code, state)
            stack.callback(logger.finalize, "success" if exit_code == 0 else "failed")  # the last one is called first


def rewind_loggers(loggers: Iterable[Logger], step: int) -> None:
    """Forget what an interrupted run logged after the checkpoint at ``step`` from which it is resumed.

    Dashboards keep what was sent: the same numbers come again at the same steps.
    """
    for logger in loggers:
        if isinstance(logger, CsvLogger):
            logger.rewind(step)


def log_work(loggers: Iterable[Logger], key: str, work: Work, step: int) -> None:
    """Show a picture or a text in every logger that can show them; of an animation its still."""
    still = work.still if isinstance(work, Animation) else work
    for logger in loggers:
        if isinstance(logger, Board):
            logger.show(key, still, step)


def log_result(loggers: Iterable[Logger], result: Mapping[str, Any], step: int | None = None) -> None:
    """Log the final metrics at ``step``, if there is one, and conclude dashboards with every number of the result.

    Args:
        loggers: those of a run.
        result: in the shape of ``result.json``.
        step: the last optimizer step; None where nothing was trained.
    """
    numbers = result["metrics"] | {
        key: value
        for key, value in flatten({key: value for key, value in result.items() if key != "metrics"}, "/")
        if isinstance(value, int | float | str)
    }
    for logger in loggers:
        if step is not None:
            logger.log_metrics(result["metrics"], step)
        if isinstance(logger, Board):
            logger.conclude(numbers)
