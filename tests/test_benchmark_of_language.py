"""The benchmark of a language model compares like with like."""

from dataclasses import replace

import pytest
import torch
from benchmarks import language, tables
from benchmarks.contestants.language_command import words
from benchmarks.contestants.language_loop import PlainGPT, optimizer_for, rate
from benchmarks.task import LanguageTask

from attelbo.building import build
from attelbo.experiments.configuration import check, compose
from attelbo.models import build_data, build_model


@pytest.fixture
def task(tmp_path) -> LanguageTask:
    text = language.lay_out(tmp_path / "nowhere", tmp_path)
    text.write_text(text.read_text(encoding="utf-8")[:3000], encoding="utf-8")
    small = language.task_for(text, rounds=2, steps=50)
    return replace(small, layers=2, heads=2, dim=16, context=8, batch_size=3)


@pytest.fixture
def config(task, tmp_path):
    composition = compose("train", words(task, tmp_path / "out")[1:])
    check(composition)
    return composition.config


def renamed(name: str) -> str:
    """A parameter of the plain network, as attelbo calls it."""
    for plain, own in (
        ("tokens.", "embedding.vectors."),
        ("places.weight", "embedding.position.table"),
        ("blocks.", "network.blocks."),
        ("attention_norm", "around_attention.norm"),
        ("feed_forward_norm", "around_feed_forward.norm"),
        ("first.", "feed_forward.first."),
        ("second.", "feed_forward.second."),
    ):
        name = name.replace(plain, own)
    return f"network.{name}" if name.startswith("norm.") else name


def test_the_command_does_the_task(task, config):
    model, data = build_model(config, build_data(config)), build_data(config)
    plain = PlainGPT(task, data.spec.n_tokens or 0)
    own = dict(model.named_parameters())
    assert {renamed(name) for name, _ in plain.named_parameters()} == set(own) - {"network.position.table"}
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            own[renamed(name)].copy_(parameter)
    batch = data.materialize(torch.arange(3), "train")
    assert batch.x.shape == (3, 8)
    ours, theirs = model.losses(batch)["loss"], plain.loss(batch.x, batch.y)
    torch.testing.assert_close(ours, theirs)
    ours.backward()
    theirs.backward()
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(own[renamed(name)].grad, parameter.grad, msg=name)
    (optimizer,) = model.configure_optimizers()
    settings = [(group["weight_decay"], group["betas"], len(group["params"])) for group in optimizer.param_groups]
    expected = optimizer_for(plain, task).param_groups
    assert settings == [(group["weight_decay"], group["betas"], len(group["params"])) for group in expected]
    schedule = build(config["scheduler"])
    rates = [task.lr * schedule(step, 150) for step in range(150)]
    assert rates == pytest.approx([rate(step, task) for step in range(150)])
    assert (config["trainer"]["max_epochs"], config["trainer"]["clip_norm"]) == (3, 1.0)
    assert data.rows_per_epoch == 50 * 3


@pytest.mark.slow
def test_it_runs_and_has_a_table(task):
    section = language.run(replace(task, steps=4), patience=60, tell=lambda _: None)
    assert section["task"]["text"] == ""
    assert {own["rows"] for own in section["contestants"].values()} == {12}
    table = tables.language(section).splitlines()
    assert len(table) == 2 + 2 + len(section["contestants"])
    assert table[-1].startswith("| the loop of nanoGPT | 2 |")
