"""``attelbo fit-prior``: only the prior moves, and what comes out is a run like any other."""

import copy
import json
from pathlib import Path

import pytest
import torch

from attelbo.building import build
from attelbo.cli import main
from attelbo.data.batch import Batch
from attelbo.errors import ConfigError
from attelbo.experiments import fitting, run
from attelbo.files import read_config
from attelbo.latent import MAF, MixtureOfGaussians, RealNVP
from attelbo.models import FittedPrior, VariationalAutoencoder, checkpoint_of, load_run
from attelbo.models.fitted_prior import CrossEntropy


@pytest.fixture(scope="module")
def first(shared_runs):
    return shared_runs.train("trainer.max_epochs=6", "data.train_size=1000").run_dir


@pytest.fixture(scope="module")
def second(first):
    assert main(["fit-prior", f"run={first}", "prior=mixture_of_gaussians", "epochs=4", "accelerator=cpu"]) == 0
    (run,) = (first.parent.parent / f"{first.parent.name}-mixture_of_gaussians").iterdir()
    return run


def weights(run, which="best"):
    return torch.load(run / "checkpoints" / f"{which}.ckpt", weights_only=True)["state_dict"]


def test_only_the_prior_moves(first, second):
    before, after = weights(first), weights(second)
    frozen = [name for name in after if not name.startswith("prior.") and name in before]
    assert {name.partition(".")[0] for name in frozen} >= {"encoder", "posterior", "decoder"}
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    config = json.loads((second / "result.json").read_text())
    assert config["metrics"]["test/reconstruction"] != 0


def test_the_fit_lowers_the_cross_entropy(second):
    rows = [line.split(",") for line in (second / "metrics.csv").read_text().splitlines()]
    losses = [float(row[3]) for row in rows if row[2] == "val/loss"]
    assert losses[-1] < losses[0]


def test_the_result_is_a_run_like_any_other(second):
    model, data = load_run(second)
    assert isinstance(model, FittedPrior)
    assert isinstance(model.prior, MixtureOfGaussians)
    data.prepare_data()
    data.setup()
    test = data.materialize(torch.arange(50), "test")
    for command in ("sample", "evaluate"):
        words = ["n=4"] if command == "sample" else ["n_samples=3", "n_images=5"]
        assert main([command, f"run={second}", "accelerator=cpu", *words]) == 0
    # The loss is the cross-entropy with the prior that was fitted, of samples of q.
    torch.manual_seed(0)
    loss = model.losses(Batch(test.x, test.y, test.index))["loss"]
    torch.manual_seed(0)
    q = model.infer(test.x)
    torch.testing.assert_close(loss, -model.prior.log_prob(q.rsample(1)).mean())
    torch.manual_seed(0)
    evidence = model.evidence(test.x)
    torch.testing.assert_close(CrossEntropy()(evidence), -model.prior.log_prob(evidence.z).mean())
    # Cross-entropy minus entropy of q is the KL.
    with torch.no_grad():
        many = model.evidence(test.x, n_samples=4000)
        entropy = -many.posterior.log_prob(many.z).mean()
        kl = float(CrossEntropy()(many) - entropy)
    assert kl == pytest.approx(float(many.rate), abs=1e-3)


@pytest.mark.parametrize("kind", ["hamiltonian", "riemannian_hamiltonian"])
def test_a_posterior_that_follows_the_prior_follows_that_of_the_first_stage(kind, tmp_path):
    """Whatever is fitted, and however often: q is that of the run it is fitted to."""
    words = ["data=digits", "data.name=led", "model=vae", "model/encoder=mlp", "model/decoder=mlp"]
    words += [f"model/posterior={kind}", "model.posterior.step_size=0.3", "model.latent_dim=2"]
    words += ["model/prior=mixture_of_gaussians"]
    words += ["trainer.max_epochs=1", "evaluation.n_samples=2", "callbacks=checkpoint", f"paths.output_dir={tmp_path}"]
    assert main(["train", "~experiment", *words, "data.binarize=dynamic"]) == 0
    runs = []
    for prior in ("first", "mixture_of_gaussians", "real_nvp"):
        if runs:
            assert main(["fit-prior", f"run={runs[-1]}", f"prior={prior}", "epochs=1", "accelerator=cpu"]) == 0
        (new,) = {found.parent for found in tmp_path.rglob("result.json")} - set(runs)
        runs.append(new)
    models = [load_run(found)[0] for found in runs]
    x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0)).round()
    samples = []
    for model in models:
        assert isinstance(model, VariationalAutoencoder)
        torch.manual_seed(0)
        samples.append(model.infer(x).rsample(3))
    assert torch.equal(samples[0], samples[1])
    assert torch.equal(samples[0], samples[2])
    first, second, third = models
    z = samples[0]
    joint = second.log_joint(x, None, second.infer(x))(z)
    torch.testing.assert_close(joint, second.explain(z, x, steady=True)[0] + second.prior.log_prob(z))
    assert not torch.allclose(joint, first.log_joint(x, None, first.infer(x))(z))
    assert isinstance(third, FittedPrior)
    assert not third.train().guide.training  # pyright: ignore[reportOptionalMemberAccess]
    config = read_config(runs[2])
    del config["model"]["guide"]
    with pytest.raises(ConfigError, match=r"^model\.guide: .* follows log p\(x, z\), in which the prior of the first"):
        run.assemble(config)


def test_codebooks_and_running_means_stay(second):
    model, _ = load_run(second)
    model.train()
    assert model.prior.training
    assert not any(part.training for part in (model.encoder, model.posterior, model.decoder, model.likelihood))
    (player,) = model.players()
    assert {id(p) for p in player.parameters} == {id(p) for p in model.prior.parameters()}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prior=standard_normal"], "StandardNormal has nothing that could be fitted"),
        (["prior=mxiture_of_gaussians"], "did you mean"),
        (["prior.n_components=0"], "n_components must be at least 1, got 0"),
        (["epochs=-3"], "epoch"),
        (["run=nowhere"], "nowhere: no such folder"),
    ],
)
def test_what_cannot_be_fitted(first, capsys, words, message):
    given = [] if words[0].startswith("run=") else [f"run={first}"]
    before = sorted(first.parent.parent.iterdir())
    assert main(["fit-prior", *given, *words, "accelerator=cpu"]) == 2
    assert message in capsys.readouterr().err
    assert sorted(first.parent.parent.iterdir()) == before


@pytest.mark.parametrize("binarize", ["threshold", "dynamic"])
def test_rows_that_are_not_drawn_anew_are_encoded_once(first, tmp_path, binarize):
    config, epochs, seen = read_config(first), 3, []
    config["data"] |= {"binarize": binarize, "train_size": 300}
    prior = {"_target_": "attelbo.latent.MixtureOfGaussians", "n_components": 3}
    spent = config["optimizer"], config["scheduler"], 0
    config = fitting.second_stage(config, checkpoint_of(first), prior, epochs, *spent)
    model, data = run.assemble(config)
    trainer = build(config["trainer"], run_dir=tmp_path, seed=0, callbacks={})
    model.encoder.register_forward_hook(lambda encoder, given, features: seen.append(len(features)))
    kept = []
    model.at_step = lambda step, total: kept.append(model._features)
    trainer.fit(model, datamodule=data)
    n, n_validation = data.n_rows("train"), data.n_rows("validation")
    in_training = n if binarize == "threshold" else epochs * n
    assert sum(seen) == n + in_training + epochs * n_validation  # first those by which the prior is placed
    assert model._features is None
    if binarize == "threshold":
        with torch.no_grad():
            torch.testing.assert_close(kept[-1], model.encoder(data.materialize(torch.arange(n), "train").x))


def test_a_checkpoint_of_another_model_is_refused(second, tmp_path):
    model, _ = load_run(second)
    path = tmp_path / "other.ckpt"
    torch.save({"state_dict": {"encoder.nothing": torch.zeros(1)}}, path)
    model.weights = str(path)
    with pytest.raises(Exception, match="is not a checkpoint of this autoencoder"):
        model.setup("fit")


@pytest.mark.parametrize("kind", [MixtureOfGaussians, MAF, RealNVP])
@torch.no_grad()
def test_a_prior_that_starts_from_samples_is_near_them(kind):
    torch.manual_seed(0)
    z = torch.tensor([3.0, -40.0]) + torch.randn(4000, 2) * torch.tensor([0.1, 20.0])
    prior = kind((2,))
    before = prior.log_prob(z.unsqueeze(1)).mean()
    prior.start_from(z)
    assert prior.log_prob(z.unsqueeze(1)).mean() > before + 50
    drawn = prior.sample(20_000)
    assert float((drawn.mean(0) - z.mean(0)).div(z.std(0)).abs().max()) < 1
    assert 0.4 < float((drawn.std(0) / z.std(0)).min()) <= float((drawn.std(0) / z.std(0)).max()) < 2
    # Still a density: E_p[u / p] over a box that holds all of it is the volume of the box.
    box = torch.rand(200_000, 1, 2) * torch.tensor([2.0, 400.0]) + torch.tensor([2.0, -240.0])
    assert float(prior.log_prob(box).exp().mean()) * 800 == pytest.approx(1, rel=0.05)


# -- both stages by one command ----------------------------------------------------------------------------

SMALL_CODES = (
    *("experiment=digits/autoencoder_vq", "data.train_size=100", "trainer.max_epochs=1", "callbacks=checkpoint"),
    *(
        "model.encoder.channels=[8,8]",
        "model.encoder.groups=2",
        "model.decoder.channels=[8,8]",
        "model.decoder.groups=2",
    ),
    *("evaluation.n_images=3", "evaluation.n_samples=2", "trainer.threads=1"),
)
FOLDERS = ("autoencoder_vq", "autoencoder_vq-autoregressive_transformer")
TRANSFORMER = ("prior=autoregressive_transformer", "prior.dim=8", "prior.heads=2", "prior.layers=1", "epochs=1")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The words of both stages, and the runs that they trained."""
    folder = tmp_path_factory.mktemp("both")
    words = (*SMALL_CODES, *TRANSFORMER, "prior.class_conditional=true", "accelerator=cpu", "seed=3")
    words = ("fit-prior", *words, f"paths.output_dir={folder}")
    assert main(list(words)) == 0
    (first,), (second,) = (list((folder / "digits" / name).iterdir()) for name in FOLDERS)
    return words, first, second


def test_one_command_trains_both_stages(both):
    _, first, second = both
    results = [json.loads((run / "result.json").read_text())["metrics"] for run in (first, second)]
    assert results[0]["test/reconstruction"] == pytest.approx(results[1]["test/reconstruction"])
    parts = results[1]["test/first_stage_bits"] + results[1]["test/prior_bits"]
    assert results[1]["test/bits_per_dim"] == pytest.approx(parts)
    assert {read_config(run)["seed"] for run in (first, second)} == {3}
    assert Path(read_config(second)["model"]["weights"]).parent.parent == first
    assert "of both stages" in (second / "report.html").read_text()


def test_the_codebook_has_not_moved(both):
    _, first, second = both
    before, after = weights(first), weights(second)
    names = [name for name in before if "codebook" in name]
    assert len(names) >= 5
    assert all(torch.equal(before[name], after[name]) for name in names if not name.endswith(".step"))


def test_the_same_command_again_finds_both(both, capsys):
    words, first, _ = both
    folder = first.parents[1]
    before = {path: path.stat().st_mtime for path in folder.glob("*/*/checkpoints/*")}
    assert main(list(words)) == 0
    assert capsys.readouterr().out.count("is done already") == 2
    assert {path: path.stat().st_mtime for path in folder.glob("*/*/checkpoints/*")} == before


def test_another_prior_finds_the_first_stage(both, capsys):
    words, first, second = both
    assert main([word for word in words if word != "prior.class_conditional=true"]) == 0
    assert capsys.readouterr().out.count("is done already") == 1
    assert len(list(first.parent.iterdir())) == 1
    assert len(list(second.parent.iterdir())) == 2


def test_a_class_is_sampled(both, capsys):
    _, first, second = both
    assert main(["sample", f"run={second}", "n=4", "y=3", "accelerator=cpu"]) == 0
    assert (second / "media" / "samples-n4-seed0-y3.png").is_file()
    assert main(["sample", f"run={second}", "n=4", "y=10", "accelerator=cpu"]) == 2
    assert "y must be in 0..9, got 10" in capsys.readouterr().err
    assert main(["sample", f"run={first}", "n=4", "y=0", "accelerator=cpu"]) == 2
    assert "it knows no labels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("prior=maf",), "MAF is no prior for the latents of VectorQuantizedPosterior"),
        (("prior=uniform_codes",), "UniformCodes has nothing that could be fitted"),
        ((*TRANSFORMER, "prior.heads=3"), "heads must divide the 8 features"),
        ((*TRANSFORMER, "model.latnet_dim=2"), "did you mean"),
        ((*TRANSFORMER, "model=vit", "~experiment"), ""),
        ((*TRANSFORMER, "trainer.replicas=2"), "trainer.replicas must be 1"),
        ((*TRANSFORMER, "epochs=0"), "epochs must be at least 1, got 0"),
        ((*TRANSFORMER, "optimizer.lr=-1.0"), "optimizer: Invalid learning rate: -1.0"),
        ((*TRANSFORMER, "scheduler.warmup=-0.5"), "scheduler: warmup must be a fraction"),
        ((*TRANSFORMER, "ckpt=none.ckpt"), "ckpt: no such file: none.ckpt"),
        ((*TRANSFORMER, "callbacks=none"), "callbacks: the second stage begins with a checkpoint of the first"),
        (
            (*TRANSFORMER, "callbacks.last_checkpoint=null", "checkpoint=last"),
            "callbacks: the second stage begins with a checkpoint of the first",
        ),
    ],
)
def test_what_is_wrong_with_either_stage_is_told_before_anything_runs(words, message, tmp_path, capsys):
    words = {word.partition("=")[0]: word for word in (*SMALL_CODES, *words)}
    assert main(["fit-prior", *words.values(), f"paths.output_dir={tmp_path}"]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_second_stage_is_the_first_but_for_what_it_was_given():
    first = {
        "name": "vae",
        "model": {
            "_target_": "attelbo.models.build_vae",
            "posterior": {"_target_": "attelbo.latent.DiagonalNormalPosterior"},
            "latent_dim": 2,
            "prior": {},
        },
        "data": {"root": "data", "batch_size": 10},
        "trainer": {"max_epochs": 50, "max_steps": 7, "replicas": 3, "accelerator": "auto", "precision": "32-true"},
        "optimizer": {"lr": 0.1},
        "scheduler": {"warmup": 0.1},
        "seed": 1,
        "ckpt": "first.ckpt",
        "evaluation": {"compress": True, "n_samples": 3},
    }
    before, prior = copy.deepcopy(first), {"_target_": "attelbo.latent.priors.MAF"}
    given = {"optimizer": {"lr": 0.2}, "scheduler": {"warmup": 0.2}, "seed": 2}
    config = fitting.second_stage(
        first, Path("best.ckpt"), prior, 4, **given, ckpt="auto", accelerator="cpu", data_dir="elsewhere"
    )
    assert config == {
        "name": "vae-maf",
        "model": first["model"] | {"_target_": fitting.SECOND_STAGE, "prior": prior, "weights": "best.ckpt"},
        "data": {"root": "elsewhere", "batch_size": 10},
        "trainer": first["trainer"] | {"max_epochs": 4, "max_steps": -1, "replicas": 1, "accelerator": "cpu"},
        **given,
        "ckpt": "auto",
        "evaluation": {"compress": False, "n_samples": 3},  # bits back is left to the first stage
        "init": {},  # what the first stage began with
    }
    assert first == before
    plain = fitting.second_stage(first, Path("best.ckpt"), prior, 4, **given)
    assert (plain["data"], plain["trainer"]["accelerator"], plain["ckpt"]) == (first["data"], "auto", None)
