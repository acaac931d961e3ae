"""What a run tells its loggers about itself."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from lightning.pytorch.loggers import Logger

from attelbo.experiments.provenance import git_tag
from attelbo.experiments.rundir import RunDirectory
from attelbo.training.loggers import Board, RunInfo, build_loggers, finish_loggers

JobType = Literal["train", "evaluate", "reproduce"]

_LONGEST = 128
"""Characters of a name or an id in W&B."""
_LONGEST_TAG = 64


def run_info(run: RunDirectory, config: dict[str, Any], job_type: JobType, part: str = "") -> RunInfo:
    """The run as its loggers know it.

    Its tags are the user's, the experiment and the version of the code. Its id includes the name of the parent folder,
    since equal jobs of two sweeps have directories of the same name.

    Args:
        run: the directory, with its configuration written.
        config: resolved, plain containers.
        job_type: what is done.
        part: the part of the run that is logged, where it is not the training.
    """
    path = run.path.absolute()
    parts = [path.parent.name, path.name, *([part] if part else [])]
    tags = [*config["tags"], run.choices().get("experiment"), git_tag()]
    return RunInfo(
        directory=run.path,
        name=" ".join([f"{config['name']}/{path.name}", *parts[2:]])[-_LONGEST:],
        run_id=re.sub(r"[^A-Za-z0-9_-]", "-", "-".join(parts))[-_LONGEST:],
        group=run.group(config["name"])[-_LONGEST:],
        job_type=job_type,
        tags=tuple(dict.fromkeys(tag[:_LONGEST_TAG] for tag in tags if tag)),
        config=config,
        part=part,
    )


@contextmanager
def boards_of(run: RunDirectory, config: dict[str, Any], job_type: JobType, part: str) -> Iterator[Sequence[Logger]]:
    """The dashboards of a run that has ended, for a later evaluation; metrics.csv stays that of the training."""
    loggers = build_loggers(config["logger"], run_info(run, config, job_type, part))
    boards = [logger for logger in loggers if isinstance(logger, Board)]
    exit_code, state = 1, "failed"
    try:
        yield boards
        exit_code, state = 0, "done"
    finally:
        finish_loggers(boards, exit_code, state)
