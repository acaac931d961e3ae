"""Functions of which some points are known: covariances by scikit-learn, sizes, pixels, and which rows come again."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import kernels

from attelbo.data import CONTEXT, IGNORE, TARGET, FunctionDataModule
from attelbo.data.pixels import PixelDataModule, pixel_places
from attelbo.data.sources import Images, ImageSource, Splits
from attelbo.data.tasks import GaussianProcess
from attelbo.data.tasks.functions import Sizes
from attelbo.errors import ConfigError
from attelbo.experiments.configuration import compose
from attelbo.models import build_data

CPU = torch.device("cpu")
SKLEARN = {
    "rbf": lambda length, period: kernels.RBF(length),
    "matern": lambda length, period: kernels.Matern(length, nu=2.5),
    "periodic": lambda length, period: kernels.ExpSineSquared(length, period),
}


def module(seed: int = 0, **options: Any) -> FunctionDataModule:
    return FunctionDataModule(
        "curves",
        {"_target_": "attelbo.data.tasks.GaussianProcess", **options},
        root="nowhere",
        seed=seed,
        batch_size=10,
        eval_batch_size=25,
        train_size=200,
        validation_size=300,
        test_size=60,
    )


def pixels(*words: str) -> PixelDataModule:
    return build_data(compose("train", ["~experiment", "data=digits_pixels", "model=cnp", *words]).config)


@pytest.mark.parametrize("kernel", SKLEARN)
def test_covariances_are_those_of_scikit_learn(kernel):
    task, generator = GaussianProcess(kernel), torch.Generator().manual_seed(0)
    x = task.places(3, CPU, generator).double()
    length, scale, period = (torch.rand(3, 1, 1, generator=generator).double() + 0.2 for _ in range(3))
    covariance = task.covariance(x, length, scale, period)
    for row in range(3):
        correlation = torch.from_numpy(SKLEARN[kernel](float(length[row]), float(period[row]))(x[row].numpy()))
        expected = float(scale[row]) ** 2 * correlation + 0.02**2 * torch.eye(49)
        torch.testing.assert_close(covariance[row], expected)


@pytest.mark.parametrize("kernel", SKLEARN)
def test_values_have_this_covariance(kernel):
    task = GaussianProcess(kernel, length=(0.4, 0.4), scale=(0.7, 0.7), period=(0.3, 0.3), noise=0.1)
    n, one = 20_000, torch.ones(1, 1, 1, dtype=torch.float64)
    x = torch.tensor([-1.0, -0.9, -0.5, 0.3, 1.9]).view(1, 5, 1)
    y = task.values(x.expand(n, -1, -1), torch.Generator().manual_seed(0)).squeeze(-1).double()
    expected = task.covariance(x.double(), 0.4 * one, 0.7 * one, 0.3 * one)[0]
    # Var of an entry of the covariance of n normal values: (s_ii s_jj + s_ij^2) / n.
    diagonal = expected.diagonal()
    error = ((diagonal.unsqueeze(0) * diagonal.unsqueeze(1) + expected.square()) / n).sqrt()
    assert ((y.mT @ y / n - expected).abs() < 5 * error).all()
    assert (y.mean(0).abs() < 5 * (diagonal / n).sqrt()).all()


def test_parameters_are_uniform():
    """Var(y_i) = E[s^2] + noise^2 with s ~ U(0.1, 1): 0.37."""
    y = GaussianProcess(max_points=6).draw(20_000, CPU, torch.Generator().manual_seed(0)).y[:, 0, 0].double()
    square = y.square()
    assert abs(float(square.mean()) - (0.37 + 0.02**2)) < 5 * float(square.std()) / math.sqrt(20_000)


def test_many_near_points_are_no_trouble():
    """Their covariance is singular but for the noise: what the differences of neighbours are made of."""
    task = GaussianProcess("rbf", scale=(1.0, 1.0), length=(0.6, 0.6))
    y = task.values(torch.linspace(-2, 2, 401).view(1, -1, 1).expand(8, -1, -1), torch.Generator().manual_seed(0))
    expected = 2 * (1 - math.exp(-0.5 * (0.01 / 0.6) ** 2)) + 2 * 0.02**2
    assert float((y[:, 1:] - y[:, :-1]).square().mean()) == pytest.approx(expected, rel=0.1)


def test_every_size_that_there_is_room_for():
    sizes = Sizes(max_points=9, min_context=2, min_target=3)
    segments = sizes.draw(20_000, CPU, torch.Generator().manual_seed(0))
    assert segments.shape == (20_000, 9)
    context, target = ((segments == kind).sum(1) for kind in (CONTEXT, TARGET))
    counts = torch.bincount(context, minlength=7)
    assert counts[:2].tolist() == [0, 0]
    assert ((counts[2:] - 4_000).abs() < 5 * math.sqrt(20_000 * 0.2 * 0.8)).all()
    for known in range(2, 7):
        found = torch.bincount(target[context == known])
        assert found.nonzero().flatten().tolist() == list(range(3, 10 - known))
        expected = float(counts[known]) / (7 - known)
        assert ((found[3:] - expected).abs() < 5 * math.sqrt(expected) + 1).all()
    place = torch.arange(9)
    assert torch.equal(segments == CONTEXT, place < context.unsqueeze(1))
    assert torch.equal(segments == IGNORE, place >= (context + target).unsqueeze(1))


@pytest.mark.parametrize("made", [module, pixels], ids=["curves", "pixels"])
def test_training_functions_are_new_each_time_and_the_others_are_not(made):
    data, rows = made(), torch.arange(5)
    torch.manual_seed(0)
    first, second = data.materialize(rows, "train"), data.materialize(rows, "train")
    assert not torch.equal(first.x, second.x)
    assert not torch.equal(first.segments, second.segments)
    torch.manual_seed(0)
    assert torch.equal(data.materialize(rows, "train").y, first.y)
    for split in ("validation", "test"):
        kept = data.materialize(rows, split)
        for again in (data, made()):
            assert all(torch.equal(*pair) for pair in zip(again.materialize(rows, split)[:4], kept[:4], strict=True))
        assert torch.equal(data.materialize(rows.flip(0), split).x, kept.x.flip(0))


@pytest.mark.parametrize("split", ["train", "validation", "test", "trained"])
def test_rows_are_values_at_places_within_the_interval(split):
    data = module(half_width=0.1, scale=[3.0, 3.0])
    batch = data.materialize(torch.arange(data.n_rows(split)), split)
    assert 0.09 < batch.x.abs().max() <= 0.1
    assert batch.y.std() == pytest.approx(3, rel=0.2)
    assert batch.segments.unique().tolist() == sorted((CONTEXT, TARGET, IGNORE))


def test_curves_of_other_kernels_to_test_on():
    data = module(other_kernels=["matern", "periodic"])
    shifted = data.shifted
    assert list(shifted) == ["matern", "periodic"]
    rows = torch.arange(60)
    values = [data.materialize(rows, "test").y, *(split.materialize(rows).y for split in shifted.values())]
    assert all(y.shape == (60, 49, 1) for y in values)
    # Of neighbours that are near, those of the rougher process differ more.
    assert module().shifted == {}
    assert not any(torch.equal(values[i], values[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize("split", ["train", "test"])
def test_pixels_are_those_of_the_image(split):
    data = pixels("data.max_points=20")
    rows = torch.arange(6)
    torch.manual_seed(0)
    batch = data.materialize(rows, split)
    images = data._split(split).images.materialize(rows).x
    assert batch.x.shape == (6, *data.spec.shape) == (6, 20, 2)
    assert batch.y.shape == (6, *data.spec.target.shape) == (6, 20, 1)
    cells = ((batch.x + 1) / 2 * 7).round().long()
    for row in range(6):
        places = [tuple(cell) for cell in cells[row].tolist()]
        assert len(set(places)) == 20
        assert [float(images[row, 0, i, j]) for i, j in places] == batch.y[row, :, 0].tolist()
    torch.testing.assert_close(pixel_places(8, 8, CPU)[cells[0, :, 0] * 8 + cells[0, :, 1]], batch.x[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": "linear"}, "kernel must be rbf, matern, periodic, got 'linear'"),
        ({"other_kernels": ["cubic"]}, "other_kernels must be rbf, matern, periodic, got 'cubic'"),
        ({"max_points": 5}, "max_points must be at least 6, got 5"),
        ({"min_context": 0}, "min_context must be at least 1, got 0"),
        ({"length": [0.5, 0.1]}, r"length must be an interval of positive numbers, got \[0.5, 0.1\]"),
        ({"noise": 0.0}, "noise must be above 0, got 0.0"),
    ],
)
def test_bad_numbers_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        module(**options)


@pytest.mark.parametrize("split", ["train", "validation", "test", "trained"])
def test_colors_of_pixels_are_in_0_to_1_as_the_specification_says(split):
    data = pixels()
    assert data.spec.target.kind == "levels"
    batch = data.materialize(torch.arange(20), split)
    levels = (torch.arange(17) * (255 / 16)).round().div(255)  # of the digits, 17
    assert torch.isin(batch.y, levels).all()
    assert float(batch.y.max()) == 1.0


def test_noise_that_rounding_takes_is_refused():
    """The factor of a covariance that is not positive definite is not one: the curves had other values, silently."""
    with pytest.raises(ConfigError, match=r"task\.noise=1e-08 is lost in the rounding of the covariance; raise it"):
        module(length=(0.6, 0.6), noise=1e-8).setup()
    module(length=(0.6, 0.6), noise=1e-6).setup()


def test_pixels_of_large_images_are_those_of_the_image():
    """Places above 32,767 have no room in 16 bits."""

    class Large(ImageSource):
        shape = (1, 256, 256)

        def load(self, root: Path) -> Splits:
            x = torch.arange(256 * 256).view(1, 1, 256, 256).remainder(251).to(torch.uint8).expand(4, -1, -1, -1)
            return Splits(Images(x, None), Images(x, None))

    data = PixelDataModule("large", Large(), root="nowhere", seed=0, batch_size=1, eval_batch_size=1, validation_size=1)
    batch = data.materialize(torch.arange(4), "test")
    row, column = ((batch.x[0] + 1) / 2 * 255).round().long().unbind(-1)
    assert torch.equal((batch.y[0, :, 0] * 255).round().long(), (row * 256 + column) % 251)
    assert len((row * 256 + column).unique()) == 256 * 256


def test_more_points_than_pixels_are_refused():
    with pytest.raises(ConfigError, match="max_points must be at most 64, the pixels of digits_pixels, got 65"):
        pixels("data.max_points=65")


def test_rows_that_are_no_images_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((20, 5), np.uint8) + 9)
    source = {"_target_": "attelbo.data.sources.Arrays", "path": "x.npy"}
    given = {"root": str(tmp_path), "seed": 0, "batch_size": 1, "eval_batch_size": 1, "validation_size": 1}
    with pytest.raises(ValueError, match=r"^source of mine has no images, but rows of 5 numbers$"):
        PixelDataModule("mine", source, **given)
