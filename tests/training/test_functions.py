"""What is shown of neural processes is what they are given, and what they say."""

import re

import numpy as np
import pytest
import torch

from attelbo.cli import main
from attelbo.data.batch import Batch
from attelbo.experiments import run
from attelbo.models import NeuralProcess, load_run
from attelbo.networks import AttentivePath
from attelbo.training.callbacks import Functions
from attelbo.training.callbacks.attention_maps import over_images
from attelbo.training.callbacks.context_maps import context_weights, draw_context_weights
from attelbo.training.callbacks.functions import (
    SHARES,
    SIZES,
    complete,
    draw_completions,
    draw_pixel_weights,
    predict_curves,
    some_pixels,
    total,
)

ONE_STEP = ("trainer.max_epochs=1", "data.train_size=10", "callbacks=default")
PIXELS = ("data=digits_pixels", "model.dim=8", "model.latent_dim=2", "model.n_predictions=2", "data.validation_size=20")


@pytest.fixture(scope="module")
def of_curves(shared_runs):
    return run.train(shared_runs.configure("model=cnp", *ONE_STEP), [], {}, None).run_dir


@pytest.fixture(scope="module")
def of_pixels(shared_runs):
    words = shared_runs.words("model=np", *PIXELS, *ONE_STEP, without=["data.test_size=40"])
    return run.train(shared_runs.compose(words), [], {}, None).run_dir


def loaded(run_dir) -> tuple[NeuralProcess, object]:
    model, data = load_run(run_dir)
    assert isinstance(model, NeuralProcess)
    return model, data


def test_curves_are_of_one_process_and_known_where_they_are_known(of_curves):
    model, data = loaded(of_curves)
    torch.manual_seed(0)
    with torch.no_grad():
        curves = predict_curves(model, data.task, 1)
        mean, std = model.predict(curves.context, curves.places, 1)
    assert (curves.context.segments >= 0).sum(1).tolist() == list(SIZES)
    torch.testing.assert_close(curves.mean, mean)
    torch.testing.assert_close(curves.std, std)
    # A known point lies on the curve: nearly the value at the nearest of the places.
    for row, n in enumerate(SIZES):
        x, y = curves.context.x[row, :n, 0], curves.context.y[row, :n, 0]
        nearest = (curves.places[row, :, 0].unsqueeze(1) - x).abs().argmin(0)
        assert ((curves.truth[row, nearest, 0] - y).abs() < 0.5).all()
    assert set(Functions().draw(model, data)) == {"functions"}
    assert (of_curves / "media" / "functions.png").is_file()
    assert "Functions" in (of_curves / "report.html").read_text()


def test_completions_show_what_is_known_and_no_more(of_pixels):
    model, data = loaded(of_pixels)
    data.setup()
    images = data.images(torch.arange(3), "test")
    torch.manual_seed(0)
    with torch.no_grad():
        found = complete(model, images, 4)
    before = torch.zeros(3, 8, 8, dtype=torch.bool)
    for share, (known, mean, std) in zip(SHARES, found, strict=True):
        assert mean.shape == std.shape == (4, 3, 1, 8, 8)
        there = (known == images).all(1)  # in all three colors
        assert there.sum((1, 2)).tolist() == [round(share * 64)] * 3
        assert (there | ~before).all()
        before = there
    with torch.no_grad():
        assert draw_completions(model, images, 2).ndim == 3
    assert (of_pixels / "media" / "completions.png").is_file()


def test_targets_look_at_known_points_by_place(shared_runs):
    torch.manual_seed(0)
    model, data = run.assemble(shared_runs.configure("model=anp"))
    assert isinstance(model, NeuralProcess)
    with torch.no_grad():
        curves = predict_curves(model.eval(), data.task, 2)
        weights = context_weights(model, curves.context, curves.places)
        assert weights is not None
        assert weights.shape == (len(SIZES), 2, 200, max(SIZES))
        # By hand: the softmax of products of what the places are mapped to, over those that are known.
        path, n = model.paths[0], SIZES[2]
        assert isinstance(path, AttentivePath)
        layer = path.cross.attention.qkv
        (to_query, to_key, _), (query_bias, key_bias, _) = layer.weight.chunk(3), layer.bias.chunk(3)
        queries = path.queries_keys(curves.places[2]) @ to_query.T + query_bias
        keys = path.queries_keys(curves.context.x[2, :n]) @ to_key.T + key_bias
        scores = torch.einsum("mhd,nhd->hmn", queries.unflatten(1, (2, 4)), keys.unflatten(1, (2, 4))) / 4**0.5
    torch.testing.assert_close(weights[2, :, :, :n], scores.softmax(-1))
    for row, n in enumerate(SIZES):
        assert not weights[row, :, :, n:].any()
    assert set(Functions(n_samples=2).draw(model, data)) == {"functions", "attention_context"}
    # Points have no order.
    two, places = Batch(*(part[:2] for part in curves.context[:4])), curves.places[:2]
    turned = Batch(two.x.flip(1), two.y, two.index, two.segments.flip(1))
    picture = draw_context_weights(weights[:2], two, places)
    np.testing.assert_array_equal(picture, draw_context_weights(weights[:2].flip(-1), turned, places))


def test_pixels_look_at_known_pixels(shared_runs):
    words = shared_runs.words("model=anp", *PIXELS, without=["data.test_size=40"])
    model, data = run.assemble(shared_runs.compose(words))
    data.setup()
    images = data.images(torch.arange(3), "test")
    torch.manual_seed(0)
    with torch.no_grad():
        picture = draw_pixel_weights(model.eval(), images)["attention_context"]
        torch.manual_seed(0)
        context, shown = list(some_pixels(images))[-1]
        weights = context_weights(model, context, context.x)
    known = (shown == images).all(1).flatten(1)
    assert weights is not None
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    assert not weights.masked_fill(known[:, None, None], 0.0).any()
    np.testing.assert_array_equal(picture, over_images(weights, shown))


def test_mean_and_deviation_of_a_mixture():
    rng = np.random.default_rng(0)
    mean, std = torch.tensor([-1.0, 0.5, 2.0]), torch.tensor([0.1, 1.0, 0.5])
    drawn = rng.normal(mean, std, size=(400_000, 3)).flatten()
    got_mean, got_std = total(mean, std)
    assert float(got_mean) == pytest.approx(drawn.mean(), abs=0.01)
    assert float(got_std) == pytest.approx(drawn.std(), abs=0.01)


def test_functions_that_may_be_meant_are_sampled(of_pixels, tmp_path, capsys):
    files = [tmp_path / f"{name}.png" for name in ("one", "again", "other")]
    for file, seed in zip(files, (1, 1, 2), strict=True):
        words = [f"run={of_pixels}", "n=2", f"seed={seed}", f"output={file}", "accelerator=cpu", f"data_dir={tmp_path}"]
        assert main(["sample", *words]) == 0
    one, again, other = (file.read_bytes() for file in files)
    assert one == again != other
    assert main(["sample", f"run={of_pixels}", "prompt=x", "accelerator=cpu"]) == 2
    assert "it writes no text" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("sample", "without a latent variable there is one answer for each context"),
        ("reconstruct", "no images to draw"),
        ("interpolate", "no images to draw"),
    ],
)
def test_what_it_cannot_do_is_said_in_one_line(of_curves, capsys, command, why):
    assert main([command, f"run={of_curves}", "accelerator=cpu"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.match(f"error: .*NeuralProcess on gp_rbf.*{why}", error), error


def test_evaluate_measures_other_functions_too(of_curves, capsys):
    assert main(["evaluate", f"run={of_curves}", "accelerator=cpu", "n_samples=2", "batch_size=20"]) == 0
    table = capsys.readouterr().out
    for name in ("target log-likelihood  ", "target log-likelihood, matern", "target log-likelihood, periodic"):
        assert name in table


def test_bad_numbers_are_refused():
    with pytest.raises(ValueError, match="n_images must be at least 1, got 0"):
        Functions(n_images=0)
