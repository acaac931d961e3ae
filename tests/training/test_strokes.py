"""Boxes on images, number by number; what DRAW paints is what is shown, and moves."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from attelbo.attention import gaussian_window
from attelbo.data.batch import Batch, DataSpec
from attelbo.experiments.exhibits import image
from attelbo.models import build_draw
from attelbo.training.boxes import around_pixels, enlarged, outlined
from attelbo.training.callbacks import Strokes
from attelbo.training.media import Animation, image_grid, save_work

SPEC = {
    "likelihood": {"_target_": "attelbo.latent.likelihoods.Bernoulli"},
    "objective": {"_target_": "attelbo.latent.objectives.ELBO"},
    "optimizer": {},
    "scheduler": {"_target_": "attelbo.models.schedulers.Constant"},
}


class Data:
    spec = DataSpec("bits", (1, 6, 6), "binary")

    @staticmethod
    def n_rows(split) -> int:
        return 12

    @staticmethod
    def materialize(index, split) -> Batch:
        return Batch((torch.arange(12 * 36).view(12, 1, 6, 6)[index] % 5 == 0).float(), None, index)


def draw(strokes: int = 12, write: int | None = 2):
    torch.manual_seed(0)
    return build_draw(Data.spec, latent_dim=2, hidden=4, strokes=strokes, read=2, write=write, **SPEC)


def test_the_outline_of_a_box_and_nothing_else() -> None:
    images = torch.zeros(2, 3, 8, 8)
    boxes = torch.tensor([[1.0, 2.0, 6.0, 5.0], [-3.0, float("nan"), 40.0, 3.0]])
    framed = outlined(images, boxes, (1.0, 0.5, 0.0), thickness=1.0)
    expected = torch.zeros(8, 8)
    expected[1:7, 2:6] = 1
    expected[2:6, 3:5] = 0
    torch.testing.assert_close(framed[0], torch.stack([expected, expected / 2, expected * 0]))
    assert framed[1].sum() == 0  # a box of NaN is none
    whole = outlined(images[:1], torch.tensor([[-3.0, -3.0, 40.0, 40.0]]), (1.0, 1.0, 1.0), thickness=1.0)
    border = torch.ones(8, 8)
    border[1:-1, 1:-1] = 0
    torch.testing.assert_close(whole[0, 0], border)  # ends where the image does


def test_a_box_around_pixels_of_an_enlarged_image() -> None:
    large, scale = enlarged(torch.rand(1, 1, 6, 6), least=24)
    assert (large.shape, scale) == ((1, 3, 24, 24), 4)
    # The centers of pixels 1 and 3: rows 4 to 15 are theirs and that of pixel 2.
    box = around_pixels(torch.tensor([[1.0, 1.0, 3.0, 3.0]]), scale)
    assert box.tolist() == [[4.0, 4.0, 15.0, 15.0]]
    window = gaussian_window(torch.zeros(1, 5), 3, (6, 6))
    assert around_pixels(window.box, scale).tolist() == [[0.0, 0.0, 23.0, 23.0]]


@torch.no_grad()
def test_strokes_move_and_end_in_the_samples(tmp_path) -> None:
    model = draw()
    works = Strokes(n_samples=4, n_images=2).draw(model, Data())
    assert set(works) == {"strokes", "glimpses"}
    painted = works["strokes"]
    assert isinstance(painted, Animation)
    torch.manual_seed(3)
    frames = painted.frames
    assert len({frame.tobytes() for frame in frames}) == 13  # 12 strokes, and the end without windows
    again = Strokes(n_samples=4, n_images=2).draw(model, Data())["strokes"]
    assert isinstance(again, Animation)
    assert all(np.array_equal(a, b) for a, b in zip(frames, again.frames, strict=True))
    path = save_work(painted, tmp_path / "strokes")
    assert path == tmp_path / "strokes.png"
    with Image.open(tmp_path / "strokes.gif") as gif:
        assert (getattr(gif, "n_frames", 1), gif.size) == (13, frames[0].shape[1::-1])
    for name in ("strokes.gif", "strokes.png"):  # as the report holds them
        with Image.open(tmp_path / name) as file:
            shown = image(tmp_path / name)
            assert (shown.width, shown.height) == file.size
            assert shown.uri.startswith(f"data:image/{name[-3:]};base64,")


@torch.no_grad()
def test_the_last_frame_is_the_samples() -> None:
    from attelbo.training.callbacks.strokes import painting

    model = draw(strokes=2, write=None)
    torch.manual_seed(1)
    painted = painting(model, 4)
    torch.manual_seed(1)
    assert np.array_equal(painted.frames[-1], image_grid(enlarged(model.sample(4))[0]))


def test_others_are_left_alone() -> None:
    assert Strokes().draw(SimpleNamespace(), Data()) == {}  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"^n_images must be at least 1, got 0"):
        Strokes(n_images=0)
