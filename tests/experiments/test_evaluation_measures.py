"""Information, disentanglement and quality of trained models: what is measured, and what is left out."""

import functools
import json
import math
import statistics
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torchmetrics.image.fid
from torch.distributions import Normal

from attelbo.cli import main
from attelbo.data.loader import spread_rows
from attelbo.errors import ConfigError
from attelbo.experiments import run
from attelbo.experiments.evaluation import (
    Conditions,
    classifier,
    evaluate_disentanglement,
    evaluate_inception,
    evaluate_information,
    evaluate_model,
    evaluate_quality,
    quality,
    write_tables,
)
from attelbo.experiments.evaluation.classifier import N_FEATURES, Classifier, classifier_of
from attelbo.experiments.evaluation.disentanglement import DISENTANGLEMENT
from attelbo.experiments.evaluation.information import information_measures
from attelbo.experiments.evaluation.probe import PROBE
from attelbo.experiments.evaluation.quality import inception_metric
from attelbo.experiments.evaluation.tables import Tables
from attelbo.experiments.settings import Evaluation
from attelbo.latent.distributions import InvertibleNormal
from attelbo.metrics import disentanglement_scores, frechet_distance
from attelbo.seeding import derive_seed

CPU = torch.device("cpu")
SETTINGS = Evaluation(n_samples=2, n_images=20, batch_size=7, chunk=None, checkpoint="best")
INFORMATION = {"mutual_information", "aggregate_kl"}
SCORES = {
    "mig", "sap", "modularity", "explicitness", "irs", "factor_vae_score", "beta_vae_score",
    "dci_disentanglement", "dci_completeness", "dci_informativeness",
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(shared_runs):
    trainer = shared_runs.fit("trainer.max_epochs=3", "optimizer.lr=0.01")
    return trainer.lightning_module.eval(), trainer.datamodule


@pytest.fixture(scope="module")
def sprites(shared_runs):
    model, data = run.assemble(shared_runs.configure("data=sprites", without=("data.binarize=dynamic",)))
    return model.eval(), data


# -- information ---------------------------------------------------------------------------------------


@torch.no_grad()
def test_information_is_that_of_a_loop_over_all_pairs(trained):
    model, data = trained
    found, _ = evaluate_information(model, data, Conditions("test", SETTINGS, seed=3))
    mean, std, z = [], [], []
    for i, rows in enumerate(spread_rows(20, data.n_rows("test")).split(7)):
        m, log_std = model.posterior.head(model.encoder(data.materialize(rows, "test").x).flatten(1)).chunk(2, -1)
        torch.manual_seed(derive_seed(3, "information", i))
        z.append(m + log_std.exp() * torch.randn(1, *m.shape)[0])
        mean.append(m)
        std.append(log_std.exp())
    q = Normal(torch.cat(mean).double(), torch.cat(std).double())
    z = torch.cat(z).double()
    log_q = torch.stack([q.log_prob(one).sum(1) for one in z])  # (sample, encoding)
    aggregate = log_q.logsumexp(1) - math.log(20)
    log_p = Normal(0.0, 1.0).log_prob(z).sum(1)
    assert found["test/mutual_information"] == pytest.approx(float((log_q.diagonal() - aggregate).mean()), abs=1e-5)
    assert found["test/aggregate_kl"] == pytest.approx(float((aggregate - log_p).mean()), abs=1e-5)


@pytest.mark.parametrize(
    ("bias", "notes"),
    [
        (0.05, ["20 images", "", "", ""]),
        (0.3, ["20 images, bias about -0.30", "bias about 0.30", "bias about 0.30", ""]),
        (math.inf, ["20 images, bias below -2", "bias above 2", "bias above 2", ""]),
    ],
)
def test_what_few_rows_cannot_show_stands_beside_the_numbers(bias, notes):
    assert [measure.note for measure in information_measures(bias, 0.1, "20 images")] == notes


@torch.no_grad()
def test_the_rows_of_the_information_are_named(trained):
    model, data = trained
    _, (first, *_) = evaluate_information(model, data, Conditions("test", SETTINGS, seed=3))
    assert first.note.startswith("20 images")
    one = replace(SETTINGS, n_images=1)
    assert evaluate_information(model, data, Conditions("test", one, seed=3))[1][0].note == "1 image"


@pytest.mark.parametrize(
    ("model", "known"),
    [("vae", True), ("vae_iaf", True), ("vae_nf", False), ("ladder_vae", False), ("ae", False)],
)
def test_what_is_not_known_is_left_out(runs, model, known):
    words = runs.words(f"model={model}", without=("model.encoder.hidden=[8]", "model.decoder.hidden=[8]"))
    kept = [w for w in words if not w.startswith(("model/", "model.latent_dim"))]
    built, data = run.assemble(runs.compose(kept))
    result = evaluate_model(built, data, Conditions("test", SETTINGS), runs.folder)
    names = {name.partition("/")[2] for name in result["metrics"]}
    assert (names & INFORMATION == INFORMATION) == known
    assert ("total_correlation" in names) == ("dimension_wise_kl" in names) == (model == "vae")
    assert ("nll" in names) == ("elbo" in names) == ("nll_samples" in result) == (model != "ae")
    assert all(math.isfinite(value) for value in result["metrics"].values())


def test_what_an_inverse_does_not_tell_is_left_out_and_the_bound_is_still_one(runs, monkeypatch, capsys):
    words = ("model/posterior=iaf", "model.posterior.hidden=[4]", "model/objective=dreg")
    model, data = run.assemble(runs.compose(runs.words(*words)))
    model.eval()
    batch = data.materialize(torch.arange(5), "test")

    def weights(stopped: bool) -> torch.Tensor:
        torch.manual_seed(0)
        return model.evidence(batch.x, n_samples=3, log_weights=True, stop_posterior=stopped).log_weights

    assert evaluate_information(model, data, Conditions("test", SETTINGS))[0]
    expected, log_prob = weights(False), InvertibleNormal.log_prob
    torch.testing.assert_close(weights(True), expected)
    monkeypatch.setattr(InvertibleNormal, "log_prob", lambda self, z: log_prob(self, z) - 100.0)
    torch.testing.assert_close(weights(True), expected)
    assert evaluate_information(model, data, Conditions("test", SETTINGS)) == ({}, [])
    assert "log q(z|x) of a given z is off by 1e+02 nats" in capsys.readouterr().err


@pytest.mark.parametrize("prior", ["standard_normal", "two_stage"])
def test_a_bound_on_the_prior_is_called_one(runs, prior):
    built, data = run.assemble(runs.compose(runs.words(f"model/prior={prior}")))
    result = evaluate_model(built, data, Conditions("test", SETTINGS), runs.folder)
    assert "test/mutual_information" in result["metrics"]
    assert ("test/aggregate_kl" in result["metrics"]) == (prior == "standard_normal")
    (kl,) = [own for own in result["measures"] if own.key == "kl"]
    assert ("at most" in kl.unit) == (prior == "two_stage")


@pytest.mark.parametrize(
    ("name", "note", "counted"),
    [
        ("vae", "2 importance samples, 20 images", True),
        ("m2", "2 importance samples, 20 images", True),
        ("cvae", "given the label; 2 importance samples, 20 images", True),
        ("vq_vae", "at most: the ELBO, since q(z|x) is a point; 20 images", False),
    ],
)
def test_what_an_nll_is_of_and_rests_on_is_told(runs, name, note, counted):
    """Of equal samples each has the weight of all of them: as many as there are would be no sign of a good estimate."""
    model, data = run.assemble(runs.compose(["~experiment", f"model={name}"]))
    result = evaluate_model(model, data, Conditions("test", SETTINGS), runs.folder)
    shown = {own.key: own for own in result["measures"]}
    assert shown["nll"].note == note
    assert shown["elbo"].note == (note.partition(";")[0] if note.startswith("given") else "")
    assert ("test/effective_sample_size" in result["metrics"]) == counted


@pytest.mark.parametrize(("name", "equal"), [("anp", False), ("cnp", True)])
def test_functions_are_given_their_context(runs, name, equal):
    model, _ = run.assemble(runs.compose(["~experiment", f"model={name}", "data=gp_rbf"]))
    assert model.equal_weights is equal
    assert "given the context" in [own.note for own in model.measures]


# -- disentanglement -----------------------------------------------------------------------------------


def test_a_model_that_knows_the_factors_has_every_score(sprites):
    """Means, samples and factors of all batches stay together."""
    _, data = sprites

    def latents(x, y):
        codes = y[:, [3, 1, 4, 0, 2]].float()
        return SimpleNamespace(posterior=SimpleNamespace(mean=codes), z=codes.unsqueeze(0))

    knowing = SimpleNamespace(latents=latents)
    found = evaluate_disentanglement(knowing, data, Conditions("test", Evaluation(1, batch_size=300)))  # pyright: ignore[reportArgumentType]
    assert found is not None
    assert found.scores.keys() == SCORES
    assert found.factors == ["shape", "scale", "orientation", "x", "y"]
    where = torch.tensor([[0, 0, 0, 1, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 1], [1, 0, 0, 0, 0], [0, 0, 1, 0, 0]])
    torch.testing.assert_close(found.found.importance, where.double(), atol=0.02, rtol=0)
    for name, score in found.scores.items():
        assert score == pytest.approx(1, abs=0.02), name  # in a part of the rows, factors are not quite independent


def test_an_untrained_model_has_scores_within_bounds_and_decodes_nothing_for_them(sprites, monkeypatch):
    model, data = sprites
    monkeypatch.delattr(type(model), "explain")
    found = evaluate_disentanglement(model, data, Conditions("validation", Evaluation(1, batch_size=300)))
    again = evaluate_disentanglement(model, data, Conditions("validation", Evaluation(1, batch_size=300)))
    assert found is not None
    assert again is not None
    assert again.scores == found.scores
    assert all(0 <= score <= 1 for score in found.scores.values())


def test_scores_see_nuisances_and_the_same_whenever_they_look(shared_runs):
    words = (
        *("data=sprites", "data.nuisance=noise", "data.source.test_size=100", "data.train_size=50"),
        "model/likelihood=discretized_logistic",
    )
    found = []
    for drawn in (1, 7):  # what is drawn for training changes nothing
        model, data = run.assemble(shared_runs.configure(*words, without=("data.binarize=dynamic",)))
        assert data.materialize(torch.arange(drawn), "train").x.shape == (drawn, 3, 32, 32)
        conditions = Conditions("test", Evaluation(1, batch_size=60, representation="mean"))
        found.append(evaluate_disentanglement(model.eval(), data, conditions))
    assert found[0].scores == found[1].scores


SPRITES = ("data=sprites", "data.source.test_size=200", "data.binarize=none", "trainer.max_epochs=1")


def scores_in(run_dir, file: str) -> dict[str, float]:
    metrics = json.loads((run_dir / file).read_text())["metrics"]
    return {name: value for name, value in metrics.items() if name.partition("/")[2] in SCORES}


def test_scores_come_by_themselves_where_there_are_factors(runs, capsys):
    run_dir = runs.train(*SPRITES).run_dir
    found = scores_in(run_dir, "result.json")
    assert found.keys() == {f"test/{name}" for name in SCORES}
    assert set(json.loads((run_dir / "result.json").read_text())["seconds"]) == {"train", "evaluate", "disentanglement"}
    printed = capsys.readouterr().out
    assert "MIG" in printed
    assert printed.count("means little: a vote draws") == 2  # of 200 rows, 16 orientations
    assert "means little: a vote draws 128 rows alike, of 12.5" in printed
    assert f"{found['test/dci_informativeness']:.3f}" in printed
    page = (run_dir / "report.html").read_text()
    assert ">SAP<" in page
    assert "the share of the factor" in page
    assert (run_dir / "media" / "factors.png").is_file()
    tables = json.loads((run_dir / "media" / "factors.json").read_text())
    assert tables["factors"] == ["shape", "scale", "orientation", "x", "y"]
    assert statistics.fmean(tables["mig_by_factor"]) == pytest.approx(found["test/mig"], abs=1e-5)
    assert statistics.fmean(tables["sap_by_factor"]) == pytest.approx(found["test/sap"], abs=1e-5)
    assert torch.tensor(tables["importance"]).shape == (2, 5)
    assert main(["compare", str(run_dir), "--metric", "mig"]) == 0
    assert f"{found['test/mig']:.3f}" in capsys.readouterr().out
    words = [f"run={run_dir}", "n_samples=2", "n_images=10", "accelerator=cpu"]
    assert main(["evaluate", *words, "batch_size=100"]) == 0  # as in the training: the noise is that of a batch
    assert scores_in(run_dir, "evaluation-test.json") == found
    assert json.loads((run_dir / "media" / "factors-test.json").read_text()) == tables
    assert main(["evaluate", *words, "disentanglement=false"]) == 0
    assert not scores_in(run_dir, "evaluation-test.json")


@pytest.mark.parametrize("word", ["evaluation.disentanglement=false", "model.latent_dim=65"])
def test_scores_can_be_left_out_and_do_not_come_unasked_where_nobody_expects_them(runs, word):
    run_dir = runs.train(*SPRITES, word).run_dir
    assert not scores_in(run_dir, "result.json")
    assert set(json.loads((run_dir / "result.json").read_text())["seconds"]) == {"train", "evaluate"}


def test_many_latents_are_drawn_by_what_they_say(tmp_path):
    factors = torch.cartesian_prod(torch.arange(3), torch.arange(4)).repeat(20, 1)
    codes = torch.cat([torch.zeros(len(factors), 50), factors.float()], 1)
    found = disentanglement_scores(codes, codes, factors, [True, True], 0)
    write_tables(Tables(["a", r"$\b$"], "published", "rows", found), tmp_path / "media" / "factors.png")
    assert (tmp_path / "media" / "factors.png").stat().st_size > 1000
    assert len(json.loads((tmp_path / "media" / "factors.json").read_text())["information"]) == 52


def test_one_row_has_no_scores(runs):
    words = [word for word in SPRITES if "test_size" not in word]
    run_dir = runs.train(*words, "data.source.test_size=1", "evaluation.disentanglement=true").run_dir
    assert not scores_in(run_dir, "result.json")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (
            ["evaluation.disentanglement=true"],
            "disentanglement=true: digits has no factors of variation; data=sprites and data=dsprites have",
        ),
        (
            ["evaluation.representation=sample"],
            "representation=sample: digits has no factors of variation; data=sprites and data=dsprites have",
        ),
        (
            ["data=sprites", "model.latent_dim=65", "evaluation.representation=mean"],
            "representation=mean: no scores are computed that read it; evaluation.disentanglement=true computes them",
        ),
        (
            ["evaluation.stretched=base"],
            "stretched is of rows of other lengths: evaluation.lengths=[...] names them",
        ),
        (
            ["data=sort", "model=gpt", "evaluation.representation=mean"],
            "representation=mean: a LanguageModel on sort: no latent variables of images",
        ),
        (
            ["data=sprites", "evaluation.probe=true"],
            "probe=true: sprites has no labels to tell from the latents",
        ),
        (
            ["model=cvae", "evaluation.probe=true"],
            "probe=true: the encoder of a ConditionalVAE is told the label, which its latents may only repeat",
        ),
        (
            ["data=sort", "model=gpt", "evaluation.quality=true"],
            "quality=true: a LanguageModel on sort: no latent variables of images",
        ),
        (
            ["data=binarized_mnist", "evaluation.quality=true"],
            "quality=true: binarized_mnist has neither classes nor factors to train a classifier on",
        ),
    ],
)
def test_what_is_not_there_is_told_before_anything_is_trained(tmp_path, capsys, words, why):
    assert main(["train", *words, f"paths.output_dir={tmp_path / 'outputs'}"]) == 2
    assert capsys.readouterr().err == f"error: evaluation.{why}\n"
    assert not (tmp_path / "outputs").exists()


def test_no_two_measures_of_images_have_one_name():
    """In the columns of a comparison there is no room for more than it."""
    names = [measure.label for measure in (*DISENTANGLEMENT, *quality.QUALITY, *quality.INCEPTION, *PROBE)]
    assert len(set(names)) == len(names)


def test_factors_that_are_not_there_are_told_before_anything_is_measured(runs, capsys):
    outcome = runs.train("trainer.max_epochs=1")
    capsys.readouterr()
    assert main(["evaluate", f"run={outcome.run_dir}", "disentanglement=true"]) == 2
    assert capsys.readouterr().err == (
        "error: disentanglement=true: digits has no factors of variation; data=sprites and data=dsprites have\n"
    )
    assert not (outcome.run_dir / "evaluation-test.json").exists()


# -- quality -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def known_classifier(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifiers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "STEPS", 40)
        yield *classifier_of(trained[1], folder, CPU), folder


def test_a_classifier_is_trained_once_for_each_data_set(trained, known_classifier, monkeypatch, shared_runs):
    data = trained[1]
    model, about, folder = known_classifier
    (place,) = folder.iterdir()
    assert place.name.startswith("digits-")
    assert json.loads((place / "provenance.json").read_text())["validation_accuracy"] == about["validation_accuracy"]
    assert about["data"]["checksums"] == data.checksums()
    monkeypatch.setattr(classifier, "STEPS", 40)
    monkeypatch.setattr(classifier, "_train", None)  # would be called
    again, known = classifier_of(data, folder, CPU)
    assert known == about
    x = data.materialize(torch.arange(9), "test").x
    assert torch.equal(again.features(x), model.features(x))
    _, other = run.assemble(shared_runs.configure("data.train_size=90"))
    with pytest.raises(TypeError, match="NoneType"):  # other rows, another classifier
        classifier_of(other, folder, CPU)


def test_a_classifier_follows_from_the_data_alone(trained, known_classifier, tmp_path, monkeypatch):
    monkeypatch.setattr(classifier, "STEPS", 40)
    torch.manual_seed(99)
    again, about = classifier_of(trained[1], tmp_path, CPU)
    for name, value in known_classifier[0].state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert about["validation_accuracy"] == known_classifier[1]["validation_accuracy"]


def test_information_is_none_of_labels(runs):
    model, data = run.assemble(runs.configure("model=m2"))  # whose q(z|x,y) were given those of the split
    assert evaluate_information(model.eval(), data, Conditions("test", SETTINGS)) == ({}, [])


def test_a_classifier_of_few_rows_makes_few_steps(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(classifier, "STEPS", 1000)
    monkeypatch.setattr(classifier, "PASSES", 3)
    _, about = classifier_of(trained[1], tmp_path, CPU)  # of 100 rows, which are one minibatch
    assert about["recipe"]["steps"] == 3


def test_a_classifier_knows_all_labels_where_the_model_knows_few(shared_runs, tmp_path, monkeypatch):
    monkeypatch.setattr(classifier, "STEPS", 60)
    _, data = run.assemble(shared_runs.configure("model=m2", "data.n_labels=20", "data.train_size=null"))
    assert (data.materialize(torch.arange(100), "train").y == -1).any()
    _, about = classifier_of(data, tmp_path, CPU)
    assert about["validation_accuracy"] > 0.6  # of 20 labels a third


def test_a_classifier_learns(shared_runs, tmp_path, monkeypatch):
    monkeypatch.setattr(classifier, "STEPS", 150)
    _, data = run.assemble(shared_runs.configure("data.train_size=null", "data.binarize=threshold"))
    _, about = classifier_of(data, tmp_path, CPU)
    assert about["validation_accuracy"] > 0.9


def test_the_classifier_of_factors_has_a_head_for_each():
    torch.manual_seed(0)
    model = Classifier((1, 32, 32), (3, 4, 2))
    x, y = torch.rand(6, 1, 32, 32), torch.tensor([[0, 3, 1]] * 6)
    a, b, c = model(x).split((3, 4, 2), 1)
    expected = -(a.log_softmax(1)[:, 0] + b.log_softmax(1)[:, 3] + c.log_softmax(1)[:, 1]).mean()
    torch.testing.assert_close(model.loss(x, y), expected)
    expected = torch.stack([a.argmax(1) == 0, b.argmax(1) == 3, c.argmax(1) == 1], 1)
    assert torch.equal(model.correct(x, y), expected)
    assert model.features(x).shape == (6, N_FEATURES)


class Copier:
    """Reconstructs perfectly, and samples given images in order."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images
        self.given = 0

    def reconstruct(self, x, y):
        return x

    def sample(self, n, y):
        self.given += n
        return self.images[self.given - n : self.given]


def quality_of(model, known_classifier, data, split="test"):
    return evaluate_quality(model, known_classifier[0], data, Conditions(split, Evaluation(1, batch_size=50)))


def test_samples_that_are_the_data_are_at_no_distance(trained, known_classifier):
    data = trained[1]
    x = data.materialize(torch.arange(data.n_rows("test")), "test").x
    found = quality_of(Copier(x), known_classifier, data)
    assert found["test/psnr"] == math.inf
    assert found["test/classifier_frechet_distance"] == pytest.approx(0, abs=1e-6)
    assert found["test/classifier_kernel_distance"] < 0  # the diagonal counts between the sets, not within
    assert "test/ssim" not in found  # images of 8x8 have no room for the window


def test_distances_are_those_of_all_features(trained, known_classifier):
    model, data = trained
    found = quality_of(model, known_classifier, data)
    assert quality_of(model, known_classifier, data) == found
    n = data.n_rows("test")
    net = known_classifier[0]
    with torch.no_grad():
        x = data.materialize(torch.arange(n), "test").x
        real, samples = net.features(x), []
        for i, rows in enumerate(torch.arange(n).split(50)):
            torch.manual_seed(derive_seed(0, "samples", i))
            samples.append(net.features(model.sample(len(rows))))
        assert found["test/classifier_frechet_distance"] == pytest.approx(
            frechet_distance(torch.cat(samples), real), rel=1e-4
        )
        error = (x - model.reconstruct(x)).square().flatten(1).mean(1)
    assert found["test/psnr"] == pytest.approx(float((-10 * error.log10()).mean()), rel=1e-5)
    # An almost untrained model does not draw digits; the training images are digits.
    assert found["test/classifier_frechet_distance"] > found["test/classifier_train_frechet_distance"] > 0
    # Of the training images themselves that distance would be 0, and the unbiased one below it.
    with torch.no_grad():
        of_train = evaluate_quality(model, net, data, Conditions("trained", Evaluation(1, batch_size=200)))
    assert not [name for name in of_train if "classifier_train" in name]
    assert {"train/psnr", "train/classifier_kernel_distance"} <= set(of_train)


def test_quality_in_the_training_is_that_of_the_command(runs, capsys, monkeypatch):
    monkeypatch.setattr(classifier, "STEPS", 5)
    run_dir = runs.train("trainer.max_epochs=1", "evaluation.quality=true").run_dir
    trained = json.loads((run_dir / "result.json").read_text())
    assert "Frechet distance" in capsys.readouterr().out
    assert main(["evaluate", f"run={run_dir}", "n_samples=2", "n_images=10", "accelerator=cpu", "quality=true"]) == 0
    again = json.loads((run_dir / "evaluation-test.json").read_text())
    assert again["classifier"] == trained["classifier"]
    assert trained["classifier"]["folder"].startswith(str(runs.folder / "classifiers" / "digits-"))
    names = {"test/psnr", "test/classifier_frechet_distance", "test/classifier_kernel_distance"}
    assert {name: again["metrics"][name] for name in names} == {name: trained["metrics"][name] for name in names}


def test_numbers_of_labels_are_written_as_other_numbers_are():
    assert "linear probe, 1,000 labels" in [measure.label for measure in PROBE]


def test_a_probe_learns_from_training_rows_and_is_tried_on_others(runs):
    words = ("data.train_size=150", "trainer.max_epochs=1", "evaluation.probe=true")
    result = json.loads((runs.train(*words).run_dir / "result.json").read_text())
    names = {name for name in result["metrics"] if "probe" in name}
    kinds = ("linear_100", "linear_all", "knn_100", "knn_all")
    assert names == {f"test/probe_{kind}{end}" for kind in kinds for end in ("", "_std_error")}
    assert 0.1 < result["metrics"]["test/probe_linear_all"] < 1
    assert result["seconds"]["probe"] > 0


# -- Inception -----------------------------------------------------------------------------------------


class Flat(torch.nn.Module):
    """In place of the Inception network."""

    num_features = 12

    def forward(self, x):
        return torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)


@pytest.fixture(autouse=True)
def no_inception_of_another_test():
    inception_metric.cache_clear()


def test_inception_distance_is_that_of_torchmetrics_on_three_channels(trained, monkeypatch):
    model, data = trained
    real = torchmetrics.image.fid.FrechetInceptionDistance
    # What is passed on by the name of features is the network.
    monkeypatch.setattr(torchmetrics.image.fid, "FrechetInceptionDistance", functools.partial(real, feature=Flat()))
    metric = inception_metric()
    found = evaluate_inception(metric, model, data, Conditions("test", Evaluation(1, batch_size=100)))
    n, net, samples = data.n_rows("test"), Flat(), []

    def features(images):
        return net(images.expand(-1, 3, -1, -1))

    for i, rows in enumerate(torch.arange(n).split(100)):
        torch.manual_seed(derive_seed(0, "samples", i))
        samples.append(features(model.sample(len(rows))))
    expected = frechet_distance(torch.cat(samples), features(data.materialize(torch.arange(n), "test").x))
    assert found["test/fid"] == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_inception_is_made_once_and_measures_anew_each_time(runs, monkeypatch):
    made = []
    kind = torchmetrics.image.fid.FrechetInceptionDistance

    def make(**options):
        made.append(kind(feature=Flat(), **options))
        return made[-1]

    monkeypatch.setattr(torchmetrics.image.fid, "FrechetInceptionDistance", make)
    words = ("trainer.max_epochs=1", "data.train_size=50", "evaluation.fid=true")
    found = [runs.train(*words, f"tags=[{tag}]").metrics["test/fid"] for tag in ("a", "b")]
    assert len(made) == 1
    assert found[0] == found[1] > 0


@pytest.mark.parametrize("error", [ModuleNotFoundError("no torch-fidelity"), OSError("no\nroute"), RuntimeError("x")])
def test_what_inception_needs_is_told(monkeypatch, error, tmp_path, capsys):
    def fail(**options):
        raise error

    monkeypatch.setattr(torchmetrics.image.fid, "FrechetInceptionDistance", fail)
    with pytest.raises(ConfigError, match=r"^fid=true: needs the package torch-fidelity and the Inception weights"):
        inception_metric()
    assert main(["evaluate", f"run={tmp_path}", "fid=true"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
