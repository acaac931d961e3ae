"""Every model of conf/model learns: two epochs on the digits bring its bound and its reconstructions forward."""

import copy

import pytest
import torch

from attelbo.building import build
from attelbo.experiments import run
from attelbo.experiments.evaluation import evaluate_bound
from attelbo.experiments.listing import choices, package_folder
from companions import WITHOUT_ENCODER

MODELS = sorted(choices([package_folder()])["model"])
TWO_EPOCHS = ("trainer.max_epochs=2", "trainer.accelerator=cpu", "trainer.threads=1", "callbacks=none", "logger=none")
OF_FEATURES = {"vae_gan"}
"""Trained by the features of a discriminator: no number of pixels has to become better in two epochs."""
SMALLER = {"vdvae": ("model.channels=16",)}


@pytest.mark.parametrize("name", MODELS)
def test_two_epochs_bring_it_forward(runs, name):
    words = [f"model={name}", *TWO_EPOCHS, *SMALLER.get(name, ())]
    if name in WITHOUT_ENCODER:
        words += ["~experiment", "optimizer.lr=3e-3"]
    config = runs.compose(words)
    model, data = run.compose(config)
    trainer = build(
        config["trainer"], run_dir=runs.folder, seed=0, callbacks=config["callbacks"], loggers=config["logger"] or []
    )
    data.prepare_data()
    data.setup()

    def bound_of(model) -> dict[str, float]:
        return evaluate_bound(model.eval(), data, "validation", 144, 0, torch.device("cpu"))

    before = bound_of(copy.deepcopy(model))
    trainer.fit(model, datamodule=data)
    after = bound_of(model)
    assert all(torch.tensor(value).isfinite() for value in after.values())
    if name in OF_FEATURES:
        return
    if "val/elbo" in after:
        assert after["val/elbo"] > before["val/elbo"]
    assert after["val/reconstruction"] < before["val/reconstruction"]
