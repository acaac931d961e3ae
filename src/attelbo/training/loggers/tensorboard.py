"""TensorBoard: curves, pictures, texts and configuration, and a row of its HPARAMS tab for each run."""

import shutil
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import yaml
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import TensorBoardLogger

from attelbo.building import flatten
from attelbo.training.loggers.base import Board, RunInfo, on_rank_zero
from attelbo.training.media import Still

FOLDER = "tensorboard"

_STATUS = {"done": "STATUS_SUCCESS", "failed": "STATUS_FAILURE"}
"""Of the HPARAMS tab; it has none for a run that was interrupted, or pruned."""


class TensorBoard(TensorBoardLogger, Board):
    """TensorBoard event files in ``<run directory>/tensorboard``.

    In the HPARAMS tab each run is a row: the keys of its configuration, those in which runs differ first, and its final
    numbers. They lie in a folder of their own, ``hparams``, since the tab would take every curve beside them for a
    result.
    """

    def __init__(self, run: RunInfo) -> None:
        super().__init__(save_dir=run.directory, name="", version=f"{FOLDER}/{run.part}", default_hp_metric=False)
        self._run = run
        self._table: Any = None

    @property
    def experiment(self) -> Any:
        """The writer of the curves; the configuration is written by the first use, on rank 0."""
        begins = self._experiment is None and on_rank_zero()
        writer = super().experiment
        if begins:
            self._begin(writer)
        return writer

    def _begin(self, writer: Any) -> None:
        from torch.utils.tensorboard import SummaryWriter

        config = yaml.safe_dump(dict(self._run.config), sort_keys=False, allow_unicode=True, width=120)
        writer.add_text("config", _as_it_stands(config))
        writer.add_text("tags", " ".join(f"`{tag}`" for tag in self._run.tags))
        rows = Path(self.log_dir) / "hparams"
        shutil.rmtree(rows, ignore_errors=True)  # the tab would show how an earlier attempt ended
        self._table = SummaryWriter(str(rows))
        started = {"hparams": _hparams(self._run.config), "group_name": "", "start_time_secs": time.time()}
        self._table.file_writer.add_summary(_session("session_start_info", started))

    @rank_zero_only
    def show(self, key: str, work: Still, step: int) -> None:
        if isinstance(work, str):
            self.experiment.add_text(key, _as_it_stands(work), step)
        else:
            self.experiment.add_image(key, work, step, dataformats="HWC")

    @rank_zero_only
    def conclude(self, numbers: Mapping[str, Any]) -> None:
        _ = self.experiment
        for key, value in numbers.items():
            # test/nll, seconds/train: the tab sorts by name, and all else would come first; of words it has no column.
            if "/" in key and not isinstance(value, str):
                self._table.add_scalar(key, value, numbers.get("steps", 0))

    @rank_zero_only
    def finish(self, exit_code: int, state: str) -> None:
        if self._table is None:
            return
        from tensorboard.plugins.hparams.api_pb2 import Status  # pyright: ignore[reportAttributeAccessIssue]

        status = Status.Value(_STATUS.get(state, "STATUS_UNKNOWN"))
        ended = {"status": status, "end_time_secs": time.time()}
        self._table.file_writer.add_summary(_session("session_end_info", ended))
        self._table.close()
        self.experiment.close()
        self._experiment = self._table = None


def _as_it_stands(text: str) -> str:
    """The text as a code block in Markdown."""
    return textwrap.indent(text, "    ", lambda line: True)


def _hparams(config: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves of a configuration as values of the tab: numbers, booleans and strings."""
    from google.protobuf.struct_pb2 import Value

    values = {}
    for key, value in flatten(config):
        if isinstance(value, bool):
            values[key] = Value(bool_value=value)
        elif isinstance(value, int | float):
            values[key] = Value(number_value=value)
        else:
            values[key] = Value(string_value="null" if value is None else str(value))
    return values


def _session(kind: str, content: Mapping[str, Any]) -> Any:
    """The summary that tells the HPARAMS tab that a run has started, or how it ended."""
    from tensorboard.compat.proto import summary_pb2
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    of_summary, of_tab = cast(Any, summary_pb2), cast(Any, plugin_data_pb2)
    message = of_tab.HParamsPluginData(version=metadata.PLUGIN_DATA_VERSION, **{kind: content})
    plugin = of_summary.SummaryMetadata.PluginData(
        plugin_name=metadata.PLUGIN_NAME, content=message.SerializeToString()
    )
    value = of_summary.Summary.Value(
        tag=f"_hparams_/{kind}",
        metadata=of_summary.SummaryMetadata(plugin_data=plugin),
        tensor=metadata.NULL_TENSOR,
    )
    return of_summary.Summary(value=[value])
