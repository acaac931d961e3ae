"""All loggers of a run: made, used and closed together."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any

from lightning.pytorch.loggers import Logger

from attelbo.building import Spec, build, flatten
from attelbo.training.loggers.base import Board, RunInfo
from attelbo.training.loggers.metrics_csv import CsvLogger
from attelbo.training.media import Animation, Work


def build_loggers(nodes: Mapping[str, Spec], run: RunInfo) -> list[Logger]:
    """The loggers of a run, from the nodes of ``conf/logger``.

    metrics.csv is written whenever anything is logged at all: only ``logger=none``, an empty mapping, is silent.

    Args:
        nodes: Name -> node; each node's ``_target_`` takes ``run`` and the node's own keys; null is no logger.
        run: The run.
    """
    loggers: list[Logger] = [build(node, run=run) for node in nodes.values() if node is not None]
    if loggers and not any(isinstance(logger, CsvLogger) for logger in loggers):
        loggers.insert(0, CsvLogger(run))
    return loggers


def finish_loggers(loggers: Iterable[Logger], exit_code: int, state: str) -> None:
    """Close every logger; to be called in a ``finally``.

    A logger that fails to close does not keep the others from it. Without this the next job of the
    same process would go on writing into this W&B run, and a failed run would be shown as finished.

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
    """Forget what an interrupted run logged after the checkpoint at ``step`` from which it now goes on.

    What a dashboard has been told it keeps: the same numbers come again at the same steps.
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
    """Log the final metrics at ``step``, if there is one, and every number of the result as what the run came to.

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
