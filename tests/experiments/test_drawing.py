"""``attelbo sample | reconstruct | interpolate | traverse | embed``: what is shown is what the model says."""

import csv
import math
import shutil

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from PIL import Image
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from attelbo.cli import main
from attelbo.experiments.assembly import assemble
from attelbo.experiments.drawing import slerp
from attelbo.experiments.embedding import _tsne
from attelbo.experiments.sampled import GROUP, write_folder
from attelbo.latent.spaces import OneHot, Positive, Product, Real, Sphere
from attelbo.models import VariationalAutoencoder, load_run
from attelbo.models.traversal import axes_of
from attelbo.seeding import derive_seed
from attelbo.training.callbacks import Pictures
from attelbo.training.media import GAP, GAP_COLOR, SMALLEST_TILE
from attelbo.training.names import named

TILE = SMALLEST_TILE  # digits have 8 pixels: they are enlarged to 48


@pytest.fixture(scope="module")
def done(shared_runs):
    return shared_runs.train().run_dir


def picture(path) -> np.ndarray:
    return np.asarray(Image.open(path))


def unnamed(picture: np.ndarray, columns: int) -> np.ndarray:
    """The grid beside the names of its rows."""
    return picture[:, -(columns * (TILE + GAP) + GAP) :]


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
        (["run=nowhere"], "nowhere: no such folder"),
    ],
)
def test_what_cannot_be_drawn(done, capsys, words, message):
    given = [] if words[0].startswith("run=") else [f"run={done}"]
    assert main(["sample", *given, *words]) == 2
    assert message in capsys.readouterr().err


def tiles(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The images of a grid, one pixel for each of theirs: (rows, columns, 8, 8)."""
    assert image.shape[:2] == (rows * (TILE + GAP) + GAP, columns * (TILE + GAP) + GAP)
    step, scale = TILE + GAP, TILE // 8
    return np.stack(
        [
            [
                image[GAP + r * step : GAP + r * step + TILE : scale, GAP + c * step : GAP + c * step + TILE : scale, 0]
                for c in range(columns)
            ]
            for r in range(rows)
        ]
    )


def as_bytes(images: torch.Tensor) -> np.ndarray:
    return (images[..., 0, :, :] * 255).round().to(torch.uint8).numpy()


@pytest.fixture(scope="module")
def trained(done):
    model, data = load_run(done)
    data.prepare_data()
    data.setup()
    return model, data.materialize(torch.arange(data.n_rows("test")), "test")


def test_reconstructions_stand_below_their_images(done, trained):
    model, test = trained
    assert main(["reconstruct", f"run={done}", "n=3", "accelerator=cpu"]) == 0
    shown = tiles(picture(done / "media" / "reconstructions-test-n3.png"), 2, 3)
    x = test.x[torch.arange(3) * len(test.x) // 3]
    np.testing.assert_array_equal(shown[0], as_bytes(x))
    np.testing.assert_array_equal(shown[1], as_bytes(model.reconstruct(x)))


def test_paths_begin_and_end_at_reconstructions(done, trained, tmp_path):
    model, test = trained
    path = tmp_path / "paths.png"
    words = [f"run={done}", "n=2", "steps=5", f"output={path}", "accelerator=cpu"]
    assert main(["interpolate", *words]) == 0
    shown = tiles(picture(path), 2, 5)
    ends = {image.tobytes() for image in as_bytes(model.reconstruct(test.x))}
    assert all(shown[row, column].tobytes() in ends for row in range(2) for column in (0, -1))
    with Image.open(path.with_suffix(".gif")) as moving:
        assert getattr(moving, "n_frames", 1) == 2 * 5 - 2
    before = path.read_bytes()
    main(["interpolate", *words])
    assert path.read_bytes() == before


def test_a_traversal_changes_one_latent_in_each_row(done, trained, tmp_path):
    model, test = trained
    path = tmp_path / "axes.png"
    words = [f"run={done}", "row=7", "n=2", "steps=3", "limit=2.0", f"output={path}", "accelerator=cpu"]
    assert main(["traverse", *words]) == 0
    shown = tiles(unnamed(picture(path), 3), 2, 3)
    means = model.encode(test.x)
    order = means.std(0, correction=0).argsort(descending=True)
    for row, latent in enumerate(order[:2]):
        for column, position in enumerate((-2.0, 0.0, 2.0)):
            z = means[7].clone()
            z[latent] = means[:, latent].mean() + position * means[:, latent].std(correction=0)
            expected = as_bytes(model.generate(z.unsqueeze(0)))[0].astype(int)
            assert np.abs(shown[row, column] - expected).max() <= 1
    names = [f"z{latent + 1}" for latent in order[:2]]
    np.testing.assert_array_equal(picture(path), named(unnamed(picture(path), 3), names))
    assert path.with_suffix(".gif").exists()


def test_a_report_shows_the_traversals_of_the_most_varying_latents(shared_runs, tmp_path):
    run_dir = shared_runs.train("callbacks=default", "callbacks.best_checkpoint=null", "model.latent_dim=10").run_dir
    shown = picture(run_dir / "media" / "traversals.png")
    assert shown.shape[0] == 8 * (TILE + GAP) + GAP
    assert 9 * (TILE + GAP) + GAP < shown.shape[1] < 9 * (TILE + GAP) + GAP + 40  # the names of the latents
    path = tmp_path / "axes.png"
    words = ["row=0", "n=8", "steps=9", "split=validation", f"output={path}", "accelerator=cpu", "checkpoint=last"]
    assert main(["traverse", f"run={run_dir}", *words]) == 0
    np.testing.assert_array_equal(shown, picture(path))
    assert "Traversals" in (run_dir / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["model=draw"], (4, 9)),
        (["model=gamma_vae"], (2, 9)),
        (["model=gumbel_vae"], (2, 10)),
        (["model=svae"], (2, 9)),
        (["model/posterior=vector_quantized", "model/prior=uniform_codes"], None),
        (["model=autoencoder_kl", "data.validation_size=40"], None),
    ],
    ids=lambda value: "",
)
def test_models_whose_latents_are_vectors_have_traversals(runs, words, expected):
    is_small = "model=autoencoder_kl" not in words  # the others are tried with networks that make no maps
    model, data = assemble(runs.configure(*words) if is_small else runs.compose(words))
    data.setup()
    works = Pictures(n_samples=1, n_reconstructions=1, n_latent=20).draw(model, data)
    assert ("traversals" in works) == (expected is not None)
    if expected is not None:
        rows, columns = expected
        grid = unnamed(works["traversals"], columns)
        assert (np.array(grid.shape[:2]) - GAP).tolist() == [rows * (TILE + GAP), columns * (TILE + GAP)]
        assert (grid[:, :GAP] == GAP_COLOR).all()


def test_choices_go_through_their_classes():
    space = Product((5,), parts=(Real((2,)), OneHot((1, 3))))
    base = torch.tensor([0.5, -0.5, 0.0, 1.0, 0.0])
    means = torch.randn(50, 5) * torch.tensor([0.1, 3.0, 0.5, 0.5, 0.5])
    found = axes_of(space, base, means, steps=4, limit=1.0)
    assert list(found) == ["z2", "z3-5", "z1"]
    paths = list(found.values())
    assert [len(path) for path in paths] == [4, 3, 4]
    assert (paths[1][:, 2:] == torch.eye(3)).all()
    assert (paths[1][:, :2] == base[:2]).all()
    assert (paths[0][:, [0, 2, 3, 4]] == base[[0, 2, 3, 4]]).all()


def test_latents_on_a_sphere_stay_there_as_one_of_them_moves():
    means = torch.nn.functional.normalize(torch.randn(100, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    paths = axes_of(Sphere((4,)), means[0], means, steps=5, limit=2.5)
    assert sorted(paths) == ["z1", "z2", "z3", "z4"]
    for path in paths.values():
        torch.testing.assert_close(path.norm(dim=1), torch.ones(5))
        moved = int((path.amax(0) - path.amin(0)).argmax())
        center, spread = means.mean(0)[moved], means.std(0, correction=0)[moved]
        wanted = center + torch.linspace(-2.5, 2.5, 5) * spread
        torch.testing.assert_close(path[:, moved], wanted.clamp(-1, 1))
        others = torch.arange(4) != moved
        cosine = torch.cosine_similarity(path[:, others], means[:1, others])  # the others keep their proportions
        torch.testing.assert_close(cosine[wanted.abs() < 1], torch.ones(int((wanted.abs() < 1).sum())))


def test_positive_numbers_stay_positive():
    means = torch.rand(50, 2)
    path, _ = axes_of(Positive((2,)), means[0], means, steps=4, limit=9.0).values()
    assert path.min() == 0
    assert axes_of(Real((2,)), means[0], means, steps=4, limit=9.0)["z1"].min() < -1


def test_slerp_goes_along_the_great_circle():
    start, end = torch.tensor([[1.0, 0.0], [2.0, 0.0]]), torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    middle = slerp(start, end, torch.tensor(0.5))
    torch.testing.assert_close(middle, torch.tensor([[0.5**0.5, 0.5**0.5], [2.0, 0.0]]))
    third = slerp(start, end, torch.tensor(1 / 3))[0]
    assert math.degrees(math.atan2(float(third[1]), float(third[0]))) == pytest.approx(30, abs=1e-4)
    torch.testing.assert_close(slerp(start, end, torch.tensor(1.0)), end)


@pytest.mark.parametrize(
    ("command", "others"),
    [
        ("sample", ("n=3", "seed=2", "checkpoint=last")),
        ("reconstruct", ("n=3", "split=validation", "checkpoint=last")),
        ("interpolate", ("n=3", "steps=4", "path=spherical", "seed=2", "split=validation", "checkpoint=last")),
        ("traverse", ("row=3", "n=1", "steps=4", "limit=1.5", "split=validation", "checkpoint=last")),
        ("embed", ("n=30", "n=30 method=tsne", "n=30 method=tsne seed=2", "split=validation", "checkpoint=last")),
    ],
)
def test_what_is_asked_for_otherwise_is_not_overwritten(runs, done, command, others):
    run_dir = shutil.copytree(done, runs.folder / "run")
    ours, files = [command, f"run={run_dir}", "accelerator=cpu"], 1 + (command in ("interpolate", "traverse", "embed"))
    shutil.rmtree(run_dir / "media", ignore_errors=True)
    for other in ((), *(words.split() for words in others)):
        assert main([*ours, *other]) == main([*ours, *other]) == 0
    assert len(list((run_dir / "media").iterdir())) == (1 + len(others)) * files


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_the_embedding_is_that_of_the_encoder(done, trained, tmp_path, method):
    model, test = trained
    path = tmp_path / "points.csv"
    assert main(["embed", f"run={done}", "n=40", f"method={method}", f"output={path}", "accelerator=cpu"]) == 0
    with path.open() as file:
        rows = list(csv.DictReader(file))
    index = torch.tensor([int(row["row"]) for row in rows])
    assert len(index) == len(index.unique()) == 40
    assert [int(row["label"]) for row in rows] == test.y[index].tolist()
    z = torch.tensor([[float(row["z1"]), float(row["z2"])] for row in rows])
    torch.testing.assert_close(z, model.encode(test.x[index]), rtol=1e-4, atol=1e-5)
    plane = torch.tensor([[float(row["x"]), float(row["y"])] for row in rows])
    assert torch.equal(plane, z) == (method == "pca")  # two latents are their own plane
    assert picture(path.with_suffix(".png")).shape[2] in (3, 4)


def test_pictures_of_ones_own_are_embedded(done, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    for i in range(3):
        Image.fromarray(np.full((8, 8), 60 * i, np.uint8)).save(tmp_path / "mine" / f"{i}.png")
    words = ["embed", f"run={done}", f"path={tmp_path / 'mine'}", "accelerator=cpu"]
    assert main([*words, f"output={tmp_path / 'points.csv'}"]) == 0
    model, data = load_run(done)
    z = model.encode(data.read(sorted((tmp_path / "mine").iterdir()))).numpy()
    written = np.loadtxt(tmp_path / "points.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(written[:, 3:], z, rtol=1e-4, atol=1e-5)
    assert main([*words, "n=2"]) == 0
    assert main([*words, "n=1"]) == 0  # a point has a map too
    assert len(list((done / "media").glob("embedding-mine-path*-n2.*"))) == 2


@pytest.mark.parametrize("spread", [1.0, 0.0])
def test_the_map_of_a_line_and_of_a_point_is_a_plane_too(spread):
    """The two principal components that t-SNE begins with are none where there is one latent, or the same for all."""
    plane = _tsne(spread * torch.randn(30, 1, dtype=torch.float64), seed=0)
    assert plane.shape == (30, 2)
    assert plane.isfinite().all()
    assert plane.std(0).min() > 0


def test_the_projector_of_tensorboard_shows_means_with_labels_and_images(done, trained, tmp_path):
    model, test = trained
    words = ["embed", f"run={done}", f"output={tmp_path / 'points.csv'}", "accelerator=cpu", "tensorboard=true"]
    assert main([*words, "n=40"]) == main([*words, "n=9"]) == 0  # the second in place of the first
    folder = done / "tensorboard" / "points"
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
    (embedding,) = config.embeddings
    with (folder / embedding.metadata_path).open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    index = torch.tensor([int(row["row"]) for row in rows])
    assert len(index) == 9
    assert [int(row["label"]) for row in rows] == test.y[index].tolist()
    z = torch.from_numpy(np.loadtxt(folder / embedding.tensor_path, delimiter="\t", dtype=np.float32))
    torch.testing.assert_close(z, model.encode(test.x[index]), rtol=1e-4, atol=1e-5)
    assert list(embedding.sprite.single_image_dim) == [8, 8]
    shown = picture(folder / embedding.sprite.image_path)[..., 0].reshape(3, 8, 3, 8).swapaxes(1, 2).reshape(9, 8, 8)
    np.testing.assert_allclose(shown, test.x[index][:, 0] * 255, atol=1)
    assert list(folder.glob("events.*"))  # without which TensorBoard takes the folder for none of its own


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["reconstruct", "n=0"], "n must be at least 1, got 0"),
        (["interpolate", "steps=1"], "steps must be at least 2, got 1"),
        (["interpolate", "n=178"], "n: 178 pairs take 356 images, test has 355"),
        (["interpolate", "path=round"], "did you mean"),
        (["interpolate", "start=a", "end=b"], "on digits: it reads no texts"),
        (["traverse", "row=355"], "test has 355 images, rows 0 to 354; row 355 was asked for"),
        (["traverse", "limit=0.0"], "limit must be positive and finite, got 0.0"),
        (["embed", "n=0"], "n must be at least 1, got 0"),
        (["embed", "factor=1"], "factor: digits has 1, counted from 0; got 1"),
        (["embed", "n=4", "method=tsne"], "method=tsne takes at least 5 images, there are 4"),
        (["embed", "n=4", "output=map.png"], "output=map.png: the file is CSV: its name must end in .csv"),
        (["interpolate", "n=1", "output=path.gif"], "the file is PNG: its name must end in .png"),
        (["reconstruct", "n=1", "output=/dev/null/x.png"], "it cannot be written: Not a directory"),
        (["sample", "n=1", "output=/proc/x.png"], "it cannot be written: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_shown(done, capsys, words, message):
    command, *others = words
    assert main([command, f"run={done}", "accelerator=cpu", *others]) == 2
    if message != "did you mean":
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["embed", "n=4", "method=tsne", "output={}/a.csv"], ["interpolate", "n=178", "output={}/a.png"]]
)
def test_of_what_is_refused_there_is_no_folder(done, tmp_path, words):
    assert (
        main([words[0], f"run={done}", "accelerator=cpu", *(w.format(tmp_path / "new" / "er") for w in words[1:])]) == 2
    )
    assert not list(tmp_path.iterdir())


def test_a_folder_is_no_file_to_write(done, tmp_path, capsys):
    (tmp_path / "x.png").mkdir()
    assert main(["sample", f"run={done}", "n=1", f"output={tmp_path / 'x.png'}", "accelerator=cpu"]) == 2
    assert capsys.readouterr().err == f"error: output={tmp_path / 'x.png'}: it cannot be written: Is a directory\n"


@pytest.mark.parametrize("command", ["embed", "interpolate", "traverse"])
def test_means_that_are_nan_are_told(runs, done, capsys, command):
    run_dir = shutil.copytree(done, runs.folder / "run")
    path = run_dir / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    for weights in content["state_dict"].values():
        weights.fill_(math.nan)
    torch.save(content, path)
    assert main([command, f"run={run_dir}", "accelerator=cpu"]) == 2
    assert capsys.readouterr().err.endswith("some of its posterior means are not finite; its training diverged\n")


# -- samples as data -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def labelled(shared_runs):
    return shared_runs.train("model=cvae").run_dir


def test_samples_as_data_are_what_the_model_draws_in_groups(labelled, tmp_path):
    path, n = tmp_path / "samples.npz", 2 * GROUP + 30
    assert main(["sample", f"run={labelled}", f"n={n}", "seed=3", f"output={path}", "accelerator=cpu"]) == 0
    model, _ = load_run(labelled)
    labels = torch.arange(n) % 10
    torch.default_generator.manual_seed(derive_seed(3, "sample"))
    images = torch.cat([model.sample(len(y), y) for y in labels.split(GROUP)])
    found = np.load(path)
    assert found["arr_0"].shape == (n, 8, 8, 1)
    assert found["arr_0"].dtype == np.uint8
    assert np.abs(found["arr_0"][..., 0] / 255 - images[:, 0].numpy()).max() <= 0.5 / 255 + 1e-6
    np.testing.assert_array_equal(found["arr_1"], labels)


def test_a_folder_of_samples_has_the_same_images_in_their_order(labelled, tmp_path, capsys):
    for name in ("x.npz", "folder"):
        words = [f"n={GROUP + 2}", "y=4", f"output={tmp_path / name}", "accelerator=cpu"]
        assert main(["sample", f"run={labelled}", *words]) == 0
    files = sorted((tmp_path / "folder").iterdir())
    assert [file.name for file in files] == [f"{place:06d}-y4.png" for place in range(GROUP + 2)]
    found = np.load(tmp_path / "x.npz")
    np.testing.assert_array_equal(np.stack([picture(file)[..., :1] for file in files]), found["arr_0"])
    assert set(found["arr_1"]) == {4}
    assert {file.name for file in tmp_path.iterdir()} == {"x.npz", "folder"}
    capsys.readouterr()
    assert main(["sample", f"run={labelled}", "n=2", f"output={tmp_path / 'folder'}", "accelerator=cpu"]) == 2
    assert "folder: it is not empty; samples go into a new folder" in capsys.readouterr().err
    assert len(list((tmp_path / "folder").iterdir())) == GROUP + 2


def test_without_labels_there_are_none(done, tmp_path):
    assert main(["sample", f"run={done}", "n=3", f"output={tmp_path / 'x.npz'}", "accelerator=cpu"]) == 0
    assert main(["sample", f"run={done}", "n=3", f"output={tmp_path / 'x'}", "accelerator=cpu"]) == 0
    assert np.load(tmp_path / "x.npz").files == ["arr_0"]
    assert sorted(file.name for file in (tmp_path / "x").iterdir()) == ["000000.png", "000001.png", "000002.png"]


def test_a_folder_that_could_not_be_filled_is_not_there(tmp_path):
    def groups():
        yield torch.rand(2, 1, 8, 8), None
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder(groups(), tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("x.jpg", "a grid of images ends in .png, data in .npz, a folder of them in nothing"),
        ("/proc/x", "written"),
        (".", "no name"),
    ],
)
def test_samples_that_cannot_be_written(done, capsys, output, message):
    assert main(["sample", f"run={done}", "n=1", f"output={output}", "accelerator=cpu"]) == 2
    assert message in capsys.readouterr().err
