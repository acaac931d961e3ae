"""Every model of conf/model learns: two epochs bring its bound and its reconstructions, or its loss, forward."""

import copy

import pytest
import torch

from attelbo.building import build
from attelbo.experiments import run
from attelbo.experiments.evaluation import Conditions, evaluate_bound
from attelbo.experiments.listing import choices, package_folder
from attelbo.experiments.settings import Evaluation
from companions import WITHOUT_ENCODER

MODELS = sorted(choices([package_folder()])["model"])
TWO_EPOCHS = ("trainer.max_epochs=2", "trainer.accelerator=cpu", "trainer.threads=1", "callbacks=none", "logger=none")
OF_FEATURES = {"vae_gan"}
"""Their loss, KL + L, is one of the features of a discriminator that learns too: before and after are compared by the
features that it has in the end. Pixels take no part in it."""
DATES = ("data=dates", "data.source.n_train=400", "data.source.n_validation=50", "data.source.n_test=10")
SCENES = ("data=multi_digits", "data.source.n_train=500", "data.source.n_test=10", "data.validation_size=100")
PAIRS = (
    *("~experiment", "data=sprites", "data.pairs=random", "data.train_size=1000", "data.validation_size=200"),
    *("model/encoder=mlp", "model/decoder=mlp", "optimizer.lr=3e-3"),
)
FEW_SETS = ("data=max_of_set", "data.train_size=1600", "data.validation_size=400")
CURVES = (
    *("data=gp_rbf", "data.train_size=300", "data.validation_size=40", "data.test_size=10"),
    *("model.dim=16", "model.n_predictions=2"),
)
RECURRENT = (*DATES, "model.embedding=8", "model.hidden=16")
SORTING = ("data=sort", "data.train_size=1000", "model.dim=16", "model.network.layers=1")
SENTENCES = ("data=reference_sentences", "data.train_size=320", "data.batch_size=16")
RECURRENT_TEXT_VAES = [name for name in MODELS if name.endswith("text_vae") and name != "transformer_text_vae"]
RECURRENT_TEXTS = (*SENTENCES, "model.embedding=16", "model.hidden=16", "model.latent_dim=2")
MAP = (
    *("~experiment", "optimizer.lr=3e-3", "data.train_size=320"),
    *(
        "model.encoder.channels=[8,16]",
        "model.encoder.groups=4",
        "model.decoder.channels=[16,8]",
        "model.decoder.groups=4",
    ),
)
FEWER_ROWS = ("data.train_size=320",)
"""A quarter of the digits: 10 steps in an epoch."""
PLAIN = (*FEWER_ROWS, "model/encoder=mlp", "model/decoder=mlp")
"""A third of the time of convolutions, which learn in `vae`; the others have another posterior, prior, objective."""
OTHER_WORDS = {
    "ada_gvae": PAIRS,
    "air": SCENES,
    **dict.fromkeys(
        ("autoencoder_fsq", "autoencoder_rvq", "autoencoder_var", "autoencoder_vq"),
        (*MAP, "model.prior.layers=1", "model.prior.dim=32"),
    ),
    "autoencoder_kl": MAP,
    **dict.fromkeys(RECURRENT_TEXT_VAES, RECURRENT_TEXTS),
    "anp": CURVES,
    "bahdanau": RECURRENT,
    "canp": CURVES,
    "cnp": CURVES,
    "deep_attentive_vae": ("model.channels=8", "model.dim=8", *FEWER_ROWS),
    "deep_sets": FEW_SETS,
    **dict.fromkeys(("conv_classifier", "fsq_vae", "rvq_vae", "vae", "vq_vae"), FEWER_ROWS),
    **dict.fromkeys(
        ("draw", "draw_no_attention"), ("model.hidden=64", "model.latent_dim=8", "model.strokes=4", *FEWER_ROWS)
    ),
    "dfc_vae": (*PLAIN, "model.extra.layers=[relu1_1]"),
    "gpt": SORTING,
    "gru_seq2seq": RECURRENT,
    "linear_gpt": SORTING,
    "lstm_seq2seq": RECURRENT,
    "np": CURVES,
    "luong": (*RECURRENT, "model.readout=16"),
    "slot_autoencoder": (
        "~experiment",
        "optimizer.lr=3e-3",
        *SCENES,
        "model.encoder.channels=[8]",
        "model.decoder.channels=[8,8]",
    ),
    "set_transformer": (*FEW_SETS, "model.network.dim=16"),
    "text_classifier": ("data=unicode_names", "data.train_size=500", "model.dim=32", "model.network.layers=1"),
    "transformer": (*DATES, "model.dim=16", "model.network.layers=1", "model.network.hidden=16"),
    "transformer_text_vae": (*SENTENCES, "model.dim=16", "model.latent_dim=2", "model.network.layers=1"),
    "vae_gan": (*PLAIN, "optimizer.lr=1e-3", "data.batch_size=16"),
    "vdvae": ("model.channels=8", *FEWER_ROWS),
    "vit": ("model.dim=32", "model.network.layers=1"),
}


@pytest.mark.parametrize("name", MODELS)
def test_two_epochs_bring_it_forward(runs, name):
    words = [f"model={name}", *TWO_EPOCHS, *OTHER_WORDS.get(name, PLAIN)]
    if name in WITHOUT_ENCODER:
        words += ["~experiment", "optimizer.lr=3e-3"]
    config = runs.compose(words)
    model, data = run.assemble(config)
    trainer = build(config["trainer"], run_dir=runs.folder, seed=0, callbacks=config["callbacks"])
    data.prepare_data()
    data.setup()

    def bound_of(model) -> dict[str, float]:
        return evaluate_bound(model.eval(), data, Conditions("validation", Evaluation(n_samples=1, batch_size=144)))

    untrained = copy.deepcopy(model)
    before = bound_of(model)  # in inference mode: nothing that it leaves behind may hinder the training
    trainer.fit(model, datamodule=data)
    after = bound_of(model)
    assert all(torch.tensor(value).isfinite() for value in after.values())
    if name in OF_FEATURES:
        untrained.objective.critic = model.objective.critic
        assert after["val/loss"] < bound_of(untrained)["val/loss"]
        return
    if "val/elbo" in after:
        assert after["val/elbo"] > before["val/elbo"]
    watched = "val/reconstruction" if "val/reconstruction" in after else "val/loss"
    assert after[watched] < before[watched]
