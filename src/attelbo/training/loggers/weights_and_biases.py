"""Weights & Biases: offline by default, one W&B run for each run, even where several runs share a process."""

import os
from collections.abc import Mapping
from typing import Any, Literal

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import WandbLogger

from attelbo.errors import UserError
from attelbo.training.loggers.base import Board, RunInfo, on_rank_zero
from attelbo.training.loggers.server import require_server
from attelbo.training.media import Still

FOLDER = "wandb"
ROWS_OF_AN_ATTEMPT = 1_000_000_000
"""More rows than any attempt logs."""


class WeightsAndBiases(WandbLogger, Board):
    """Weights & Biases, offline by default; ``attelbo wandb sync <folder>`` sends it later.

    How a run ended is shown there: done as finished; failed as failed; interrupted as preempting, until it is resumed;
    pruned as finished, with a tag. The summary has it as ``state``.

    Args:
        run: The run that is logged.
        project: The project on the server.
        entity: User or team; None is the one that is logged in.
        mode: "offline" writes to the run directory only; "online" needs a server; "disabled" does nothing.
    """

    def __init__(
        self,
        run: RunInfo,
        project: str = "attelbo",
        entity: str | None = None,
        mode: Literal["offline", "online", "disabled"] = "offline",
    ) -> None:
        self._folder = run.directory / FOLDER
        # Lightning's own `offline=True` sets WANDB_MODE for the whole process, hence for later jobs: not used.
        super().__init__(
            name=run.name,
            save_dir=str(run.directory),
            version=run.run_id,
            project=project,
            entity=entity,
            mode=mode,
            group=run.group,
            job_type=run.job_type,
            tags=list(run.tags),
            config=dict(run.config),
        )
        del self._wandb_init["anonymous"]  # Lightning always passes it, and wandb warns that it is deprecated

    @property
    def experiment(self) -> Any:
        """The wandb run; started by the first use, on rank 0.

        Raises:
            UserError: there is no server, or it does not let this user in.
        """
        if self._experiment is None and on_rank_zero():
            self._prepare()
            self._start()
        return super().experiment

    def _prepare(self) -> None:
        online = self._wandb_init["mode"] == "online"
        # Before wandb is imported: it reads some of these then, the others when a run starts. The user's own
        # settings say which server is meant and who is logged in: they are left alone where they matter.
        os.environ["WANDB_ERROR_REPORTING"] = "false"
        for purpose in ("data", "cache") if online else ("data", "cache", "config"):
            folder = self._folder / purpose
            folder.mkdir(parents=True, exist_ok=True)
            os.environ[f"WANDB_{purpose.upper()}_DIR"] = str(folder)
        import wandb

        # The progress bar would otherwise be copied to output.log at every refresh.
        self._wandb_init["settings"] = wandb.Settings(
            console="off",
            silent=not online,
            reinit="create_new",  # replicas share a process, and each has a run of its own
        )
        if not online:
            self._wandb_init["resume"] = None  # offline, the same id is enough, and "allow" only warns

    def _start(self) -> None:
        otherwise = "logger.wandb.mode=offline needs none, and `attelbo wandb sync` sends the run when there is one"
        if self._wandb_init["mode"] == "online":
            require_server("logger.wandb.mode=online", otherwise)
        from wandb.errors import CommError, UsageError

        before = len(list(self._folder.glob(f"offline-run-*-{self.version}")))
        try:
            experiment = super().experiment
        except (CommError, UsageError) as error:
            raise UserError(f"logger.wandb: {error}; {otherwise}") from error
        if before:
            # Rows are numbered: sent one after another, the attempts of a run must not number theirs alike.
            experiment.log({}, step=before * ROWS_OF_AN_ATTEMPT)

    @rank_zero_only
    def show(self, key: str, work: Still, step: int) -> None:
        if isinstance(work, str):
            self.log_text(key, columns=["text"], data=[[work]], step=step)
        else:
            self.log_image(key, [work], step=step)

    @rank_zero_only
    def conclude(self, numbers: Mapping[str, Any]) -> None:
        self.experiment.summary.update(dict(numbers))

    @rank_zero_only
    def finish(self, exit_code: int, state: str) -> None:
        if self._experiment is None:
            return
        self._experiment.summary["state"] = state
        if state == "pruned":
            self._experiment.tags += (state,)
        if state == "interrupted":
            self._experiment.mark_preempting()
        self._experiment.finish(exit_code=exit_code)
        self._experiment = None
