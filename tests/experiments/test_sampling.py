"""``attelbo sample``: a picture of the right size, the same for the same seed."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from attelbo.cli import main
from attelbo.models import VariationalAutoencoder
from attelbo.seeding import derive_seed
from attelbo.training.media import GAP, SMALLEST_TILE

TILE = SMALLEST_TILE  # digits have 8 pixels: they are enlarged to 48


@pytest.fixture(scope="module")
def done(shared_runs):
    return shared_runs.train().run_dir


def picture(path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.mark.parametrize("n", [1, 5, 64])
def test_the_grid_has_the_size_of_its_images(done, n):
    assert main(["sample", f"run={done}", f"n={n}", "accelerator=cpu"]) == 0
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    image = picture(done / "media" / f"samples-n{n}-seed0.png")
    assert image.shape == (rows * (TILE + GAP) + GAP, columns * (TILE + GAP) + GAP, 3)
    assert image.dtype == np.uint8


def test_the_picture_shows_what_the_model_draws(done, tmp_path):
    path = tmp_path / "mine.png"
    assert main(["sample", f"run={done}", "n=4", "seed=3", f"output={path}", "accelerator=cpu"]) == 0
    model = VariationalAutoencoder.from_run(done)
    torch.default_generator.manual_seed(derive_seed(3, "sample"))
    images = model.sample(4)
    assert images.min() >= 0
    assert images.max() <= 1
    image = picture(path)
    for place, expected in enumerate(images[:, 0]):
        top, left = (GAP + i * (TILE + GAP) for i in divmod(place, 2))
        shown = image[top : top + TILE : TILE // 8, left : left + TILE : TILE // 8, 0]
        np.testing.assert_array_equal(shown, (expected * 255).round().to(torch.uint8).numpy())


def test_the_seed_decides(done, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        main(["sample", f"run={done}", "n=4", f"seed={seed}", f"output={tmp_path / name}.png", "accelerator=cpu"])
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b != c


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["n=0"], "n must be at least 1, got 0"),
        (["run=nowhere"], "nowhere is no run directory"),
    ],
)
def test_what_cannot_be_drawn(done, capsys, words, message):
    given = [] if words[0].startswith("run=") else [f"run={done}"]
    assert main(["sample", *given, *words]) == 2
    assert message in capsys.readouterr().err
