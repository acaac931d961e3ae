import numpy as np
import pytest
import torch
from PIL import Image

from attelbo.training.media import (
    GAP,
    GAP_COLOR,
    POINT_OPACITY,
    image_grid,
    label_colors,
    latent_map,
    pair_grid,
    project_to_plane,
    save_png,
    to_uint8,
)


def test_bytes_are_rounded_clipped_and_channels_last():
    image = torch.tensor([[[0.0, 1.0, 0.5], [-0.2, 1.7, float("nan")]]])  # (1, 2, 3)
    expected = np.array([[0, 255, 128], [0, 255, 0]], dtype=np.uint8)
    picture = to_uint8(image)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, np.stack([expected] * 3, -1))


def test_every_level_survives_the_way_to_bytes():
    levels = torch.arange(256).div(255).reshape(1, 16, 16)
    np.testing.assert_array_equal(to_uint8(levels)[..., 0].ravel(), np.arange(256))


def test_three_channels_are_colors_and_others_are_averaged():
    color = torch.stack([torch.full((2, 2), v) for v in (1.0, 0.0, 0.2)])
    np.testing.assert_array_equal(to_uint8(color)[1, 1], [255, 0, 51])
    five = torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8]).reshape(5, 1, 1)
    np.testing.assert_array_equal(to_uint8(five)[0, 0], [102, 102, 102])


def test_grid_puts_each_pixel_in_its_place():
    images = torch.zeros(3, 1, 50, 60)
    images[1, 0, 10, 20] = 1.0
    grid = image_grid(images, columns=2)
    assert grid.shape == (2 * (50 + GAP) + GAP, 2 * (60 + GAP) + GAP, 3)
    # The one white pixel: second tile of the first row.
    assert np.argwhere(grid[..., 0] == 255).tolist() == [[GAP + 10, GAP + 60 + GAP + 20]]
    # Gaps and the empty fourth place have the gap's color, and nothing else has.
    gap = np.ones(grid.shape[:2], dtype=bool)
    for top, left in ((GAP, GAP), (GAP, 2 * GAP + 60), (2 * GAP + 50, GAP)):
        gap[top : top + 50, left : left + 60] = False
    np.testing.assert_array_equal(grid[..., 0] == GAP_COLOR, gap)


@pytest.mark.parametrize(("side", "scale"), [(8, 6), (28, 2), (32, 2), (48, 1), (64, 1), (1, 48)])
def test_tiny_images_are_enlarged_by_repeating_pixels(side, scale):
    image = torch.rand(1, 1, side, side)
    inner = image_grid(image)[GAP:-GAP, GAP:-GAP]
    np.testing.assert_array_equal(inner, np.kron(to_uint8(image)[0, ..., :1], np.ones((scale, scale, 3), np.uint8)))


def test_pairs_stand_above_each_other():
    originals = torch.linspace(0, 0.5, 5).reshape(5, 1, 1, 1).expand(5, 1, 48, 48)
    reconstructions = originals + 0.5
    grid = pair_grid(originals, reconstructions, columns=3)[GAP :: 48 + GAP, GAP :: 48 + GAP, 0]  # one pixel per tile
    o, r = to_uint8(originals)[:, 0, 0, 0], to_uint8(reconstructions)[:, 0, 0, 0]
    expected = [[*o[:3]], [*r[:3]], [*o[3:], GAP_COLOR], [*r[3:], GAP_COLOR]]
    np.testing.assert_array_equal(grid[:4, :3], expected)


def test_png_reads_back_and_leaves_nothing_beside_it(tmp_path):
    picture = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    path = save_png(picture, tmp_path / "media" / "noise.png")
    save_png(picture, path)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), picture)
    assert [p.name for p in path.parent.iterdir()] == ["noise.png"]


def test_plane_is_that_of_the_principal_components():
    from sklearn.decomposition import PCA

    torch.manual_seed(0)
    points = torch.randn(200, 6) @ torch.diag(torch.tensor([5.0, 0.3, 2.0, 0.1, 1.0, 0.5])) + 3
    plane, share = project_to_plane(points)
    pca = PCA(2).fit(points.numpy())
    reference = torch.from_numpy(pca.transform(points.numpy())).double()
    signs = (plane * reference).sum(0).sign()
    torch.testing.assert_close(plane, reference * signs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(share, torch.from_numpy(pca.explained_variance_ratio_).double(), rtol=1e-5, atol=1e-6)
    again, _ = project_to_plane(points.flip(0))
    torch.testing.assert_close(again.flip(0), plane)


def test_plane_of_two_and_of_one_dimension():
    points = torch.randn(9, 2)
    plane, share = project_to_plane(points)
    assert share is None
    torch.testing.assert_close(plane, points.double())
    line, _ = project_to_plane(torch.tensor([[3.0], [1.0], [2.0], [0.0]]))
    assert line[:, 1].tolist() == [1.0, 0.5, 0.75, 0.25]


def test_constant_points_have_a_plane():
    plane, share = project_to_plane(torch.ones(5, 3))
    assert share is not None
    assert plane.abs().max() == 0
    assert share.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("n_classes", [1, 3, 10, 15, 20, 40])
def test_every_class_has_its_own_color(n_classes):
    colors = label_colors(n_classes)
    assert colors.shape == (n_classes, 4)
    assert len(np.unique(np.round(colors, 3), axis=0)) == n_classes


def test_latent_map_paints_the_points_in_the_colors_of_their_classes():
    corners = torch.tensor([[0.03, 0.03], [0.03, 1.03], [1.03, 0.03], [1.03, 1.03]])  # beside the grid lines
    picture = latent_map(corners, torch.tensor([5, 5, 8, 8]))
    assert picture.shape == (768, 768, 3)
    for color in label_colors(2)[:, :3]:
        blended = 255 * (POINT_OPACITY * color + 1 - POINT_OPACITY)
        near = (np.abs(picture - blended) <= 1.5).all(-1)
        rows, columns = np.nonzero(near[:, :870])  # left of the legend
        assert len(rows) > 20
        # Two points, one above the other: class 5 on the left, class 8 on the right.
        assert np.ptp(rows) > 400
        assert np.ptp(columns) < 20


def test_latent_map_names_the_classes_that_have_names_and_are_known():
    means, labels = torch.randn(9, 2), torch.arange(9) % 3
    said = {}
    for what, given, names in (
        ("plain", labels, None),
        ("numbers", labels, ("0", "1", "2")),
        ("names", labels, ("a", "b", "c")),
        ("unknown", labels - 1, ("0", "1")),
        ("as numbers", labels - 1, None),
    ):
        said[what] = latent_map(means, given, names=names)
    assert np.array_equal(said["plain"], said["numbers"])
    assert not np.array_equal(said["plain"], said["names"])
    assert np.array_equal(said["unknown"], said["as numbers"])


@pytest.mark.parametrize("labels", [None, torch.arange(4)])
def test_a_long_title_of_a_latent_map_stays_inside(labels):
    title = "Posterior means, 1,000 validation texts of sentences_with_a_long_name of one's own"
    picture = latent_map(torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]), labels, title)
    assert (picture[:, -3:] == 255).all()


def test_names_of_classes_are_taken_literally():
    means, labels = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0]]), torch.tensor([0, 1, 2])
    plain = latent_map(means, labels, names=["cats", "dogs", "birds"])
    for names in (["$\\nothing$", "dogs", "birds"], ["$5-$9", "_dogs", "b^i_rds"]):
        assert latent_map(means, labels, names=names).shape == plain.shape


def test_latent_map_is_the_same_every_time():
    means, labels = torch.randn(300, 5), torch.arange(300) % 10
    np.testing.assert_array_equal(latent_map(means, labels), latent_map(means, labels))


def test_a_latent_map_of_factors_takes_its_colors_from_the_first_that_varies():
    means, shape = torch.randn(30, 2, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3
    factors = torch.stack([torch.zeros_like(shape), shape, torch.arange(30)], 1)
    assert np.array_equal(latent_map(means, factors), latent_map(means, shape))
    assert not np.array_equal(latent_map(means, factors), latent_map(means, torch.zeros_like(shape)))
