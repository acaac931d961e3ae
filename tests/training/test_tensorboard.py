import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from logged import NUMBERS, PICTURE, RESULT, TENSORBOARD, loggers_for, run_info
from PIL import Image
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

from attelbo.training.loggers import build_loggers, finish_loggers, log_result, log_work


def events_of(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def text_of(events: EventAccumulator, key: str) -> str:
    (text,) = events.Tensors(f"{key}/text_summary")
    return text.tensor_proto.string_val[0].decode()


def test_numbers_texts_and_the_exact_pixels(tmp_path):
    loggers = loggers_for(tmp_path, tb=TENSORBOARD)
    for logger in loggers:
        logger.log_metrics({"val/elbo": -1.5}, 7)
    log_work(loggers, "samples", PICTURE, 7)
    log_work(loggers, "texts", "to be\n\n# or *not*", 7)
    finish_loggers(loggers, 0, "done")
    events = events_of(tmp_path / "tensorboard")
    assert [(event.step, event.value) for event in events.Scalars("val/elbo")] == [(7, -1.5)]
    assert text_of(events, "texts") == "    to be\n    \n    # or *not*"  # Markdown of a block that is not set
    assert "    model:\n      latent_dim: 4" in text_of(events, "config")
    assert text_of(events, "tags") == "`v0.1.0`"
    (tmp_path / "shown.png").write_bytes(events.Images("samples")[0].encoded_image_string)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "shown.png")), PICTURE)


def hparams_tab(folder: Path) -> tuple[Any, list[Any]]:
    """What TensorBoard itself makes of a folder of runs for its HPARAMS tab: the columns, and the runs."""
    multiplexer = EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    context = backend_context.Context(TBContext(data_provider=MultiplexerDataProvider(multiplexer, str(folder))))
    request, asked = RequestContext(), api_pb2.ListSessionGroupsRequest(start_index=0, slice_size=100)
    asked.allowed_statuses.extend(api_pb2.Status.values())
    found = list_session_groups.Handler(request, context, "", asked).run()
    experiment = context.experiment_from_metadata(
        request, "", True, context.hparams_metadata(request, ""), context.hparams_from_data_provider(request, "", 1000)
    )
    return experiment, sorted(found.session_groups, key=lambda group: group.sessions[0].name)


def test_the_hparams_tab_compares_runs_by_keys_that_differ_and_final_numbers(tmp_path):
    ends = {"a": (0, "done"), "b": (1, "failed"), "c": (143, "interrupted")}
    for place, (name, (code, state)) in enumerate(ends.items()):
        run = run_info(tmp_path / name, seed=place, model={"latent_dim": 4, "widths": [8] * (place + 1), "bias": True})
        loggers = build_loggers({"tb": TENSORBOARD}, run)
        loggers[1].log_metrics({"train/loss": 3.0}, 1)
        if state == "done":
            log_result(loggers, RESULT, 7)
        finish_loggers(loggers, code, state)

    experiment, groups = hparams_tab(tmp_path)
    differing = {info.name for info in experiment.hparam_infos if info.differs}
    assert differing == {"seed", "model.widths"}
    assert {info.name for info in experiment.hparam_infos} == differing | {
        "model.latent_dim", "model.bias", "ckpt", "name",
    }  # fmt: skip
    # What a run came to, in numbers, and no curve.
    numbers = {key: value for key, value in NUMBERS.items() if "/" in key and not isinstance(value, str)}
    assert {info.name.tag for info in experiment.metric_infos} == set(numbers)
    first = groups[0]
    assert {value.name.tag: value.value for value in first.metric_values} == pytest.approx(numbers)
    assert {value.training_step for value in first.metric_values} == {7}
    assert (first.hparams["model.latent_dim"].number_value, first.hparams["model.bias"].bool_value) == (4, True)
    assert (first.hparams["model.widths"].string_value, first.hparams["ckpt"].string_value) == ("[8]", "null")
    statuses = [api_pb2.Status.Name(group.sessions[0].status) for group in groups]
    assert statuses == ["STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_UNKNOWN"]
    for group in groups:
        (session,) = group.sessions
        assert 0 <= session.end_time_secs - session.start_time_secs < 3600
        assert math.isfinite(session.start_time_secs)


def test_a_run_that_goes_on_is_one_row(tmp_path):
    for code, state in ((143, "interrupted"), (0, "done")):
        loggers = loggers_for(tmp_path, tb=TENSORBOARD)
        loggers[-1].log_metrics({"train/loss": 3.0}, 1)
        if state == "done":
            log_result(loggers, RESULT, 7)
        finish_loggers(loggers, code, state)
    _, (group,) = hparams_tab(tmp_path)
    assert api_pb2.Status.Name(group.sessions[0].status) == "STATUS_SUCCESS"


def test_nothing_is_written_before_something_is_logged(tmp_path):
    finish_loggers(loggers_for(tmp_path, tb=TENSORBOARD), 1, "failed")
    assert not (tmp_path / "tensorboard").exists()
