"""Every choice in conf/ that can run on this machine takes one optimizer step, VAEs on the digits."""

import json
import math

import pytest
import torch
import yaml

from attelbo.errors import ConfigError
from attelbo.experiments import run
from attelbo.experiments.listing import choices, package_folder
from attelbo.training.trainer import bf16_is_fast
from companions import words_for, words_for_experiment

CHOICES = choices([package_folder()])
PARTS = [group.removeprefix("model/") for group in CHOICES if group.startswith("model/")]
# An epoch of one minibatch.
ONE_STEP = ("trainer.max_epochs=1", "data.train_size=10", "evaluation.n_samples=2", "evaluation.n_images=3")


def of(group: str) -> list[str]:
    return list(CHOICES[group])


def steps_of(outcome: run.Outcome) -> int:
    assert outcome.state == "done"
    result = json.loads((outcome.run_dir / "result.json").read_text())
    assert all(math.isfinite(value) for name, value in result["metrics"].items() if not name.endswith("std_error"))
    return result["steps"]


def moved(trainer, config) -> float:
    """The share of the parameters that the training changed."""
    before, _ = run.assemble(config)
    after = dict(trainer.lightning_module.named_parameters())
    assert all(value.isfinite().all() for value in after.values())
    changed = [not torch.equal(value, after[name]) for name, value in before.named_parameters()]
    return sum(changed) / len(changed)


PART_CHOICES = [(part, choice) for part in PARTS for choice in of(f"model/{part}")]


@pytest.mark.parametrize(("part", "choice"), PART_CHOICES, ids=[f"{part}={choice}" for part, choice in PART_CHOICES])
def test_part(runs, part, choice):
    words = (*words_for(part, choice), *ONE_STEP)
    without = (f"model.{part}.hidden=[8]",)  # a convolution has no such thing
    config = runs.configure("callbacks=none", *words, without=without)
    trainer = runs.fit_composed(config)
    assert trainer.lightning_module.stepper.step == 1
    assert trainer.callback_metrics["val/loss"].isfinite()
    # A network that begins at zero lets only its last layer move at first.
    assert moved(trainer, config) > 0.3


@pytest.mark.parametrize("group", ["optimizer", "scheduler", "logger", "debug"])
def test_choice_of(runs, group):
    for choice in of(group):
        words = (f"{group}={choice}", *ONE_STEP)
        if (group, choice) == ("logger", "wandb") or choice == "many":
            words = (*words, "logger.wandb.mode=disabled")
        assert steps_of(runs.train(*words)) == 1, choice


def test_all_callbacks_at_once(runs):
    config = runs.configure("callbacks=default", *ONE_STEP)
    usual = yaml.safe_load((package_folder() / "callbacks" / "default.yaml").read_text())["defaults"]
    for choice in set(of("callbacks")) - {"default", "none", *usual}:
        config["callbacks"] |= runs.configure(f"callbacks={choice}", *ONE_STEP)["callbacks"]
    assert {"early_stopping", "pictures"} < config["callbacks"].keys()
    assert steps_of(run.train(config, [], {}, None)) == 1


@pytest.mark.parametrize("experiment", of("experiment"))
def test_experiment(runs, experiment):
    composed = runs.compose(words_for_experiment(experiment, runs.words(*ONE_STEP)))
    assert steps_of(run.train(composed, [], {}, None)) == 1


@pytest.mark.parametrize("trainer", of("trainer"))
def test_trainer(runs, trainer):
    words = (f"trainer={trainer}", *ONE_STEP)
    config = runs.configure(*words, without=("trainer.accelerator=cpu",))
    needs_gpu = config["trainer"]["accelerator"] == "gpu"
    if needs_gpu and not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"^trainer: .*"):
            run.train(config, [], {}, None)
        return
    if trainer == "multi_node" or (needs_gpu and torch.cuda.device_count() > 1):
        pytest.skip("takes more than this process")
    if config["trainer"]["precision"].startswith("bf16") and not bf16_is_fast(config["trainer"]["accelerator"]):
        pytest.skip("this CPU has no bf16 arithmetic")
    config["trainer"]["devices"] = 1  # two processes are tested with the run
    assert steps_of(run.train(config, [], {}, None)) == 1
