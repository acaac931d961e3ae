"""Arrays of one's own, made by the test: what is read of them, what is refused, and densities in the file's units."""

import io
import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.decomposition import PCA

from attelbo.cli import main
from attelbo.data import ArrayDataModule
from attelbo.data.module import fixed_generator
from attelbo.data.sources import Arrays
from attelbo.errors import ConfigError, DataError, UserError
from attelbo.latent import Normal, Rescaled
from attelbo.models import VariationalAutoencoder, load_run

RANDOM = np.random.default_rng(0)
TABLE = RANDOM.normal(size=(200, 3)) * [1, 1000, 0.01] + [0, 1e6, 5]
BYTES = RANDOM.integers(0, 256, size=(20, 6, 5, 3), dtype=np.uint8)


def archive(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "arrays.npz", **arrays)
    return folder


def module(folder: Path, source: dict[str, Any] | None = None, **options: Any) -> ArrayDataModule:
    given = {"_target_": "attelbo.data.sources.Arrays", "path": "arrays.npz"} | (source or {})
    arguments: dict[str, Any] = {"name": "mine", "root": str(folder), "seed": 0, "batch_size": 10}
    return ArrayDataModule(**(arguments | {"eval_batch_size": 10, "source": given} | options))


def rows(data: ArrayDataModule, split: Any) -> torch.Tensor:
    return data.materialize(torch.arange(data.n_rows(split)), split).x


# -- what is read ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "channels", "shape"),
    [
        (BYTES, "auto", (3, 6, 5)),
        (BYTES.transpose(0, 3, 1, 2), "auto", (3, 6, 5)),
        (BYTES[..., 0], "auto", (1, 6, 5)),
        (BYTES[:, :4], "last", (3, 4, 5)),
        (BYTES[:, :4], "first", (4, 5, 3)),
        (BYTES[:, 0, :, 0], "auto", (5,)),
        (np.asfortranarray(BYTES[..., 0] / 7).astype(">f4"), "auto", (1, 6, 5)),
    ],
)
def test_what_is_read_is_what_the_file_has(x, channels, shape, tmp_path):
    archive(tmp_path, x_train=x[:16], x_test=x[16:])
    data = module(tmp_path, {"channels": channels}, validation_size=2)
    assert data.spec.shape == shape
    last = x.ndim == 4 and channels != "first" and x.shape[3] == 3
    expected = (np.moveaxis(x, -1, 1) if last else x).astype(np.float64).reshape(20, *shape)
    test = data.restored(rows(data, "test"))
    np.testing.assert_allclose(test, expected[16:], rtol=1e-6)
    train = data.restored(torch.cat([rows(data, "train"), rows(data, "validation")]))
    np.testing.assert_allclose(
        train.flatten(1).sum(1).sort().values, np.sort(expected[:16].reshape(16, -1).sum(1)), 1e-6
    )


@pytest.mark.parametrize("side", [4, 16])
def test_large_rows_are_divided_where_they_lie(tmp_path, side):
    x = np.arange(40, dtype=np.uint8)[:, None, None] + np.zeros((side, side), np.uint8)
    np.save(tmp_path / "x.npy", x)
    source = Arrays("x.npy")
    train, test = source.load(tmp_path)
    drawn = torch.randperm(40, generator=fixed_generator("arrays test split"))
    assert test.x[:, 0, 0, 0].tolist() == sorted(drawn[:4].tolist())
    assert train.x[:, 0, 0, 0].tolist() == sorted(drawn[4:].tolist())
    data = module(tmp_path, {"path": "x.npy"}, validation_size=6)
    sizes = [data._split(split).x.untyped_storage().nbytes() // side**2 for split in ("train", "validation", "test")]
    assert sizes == ([40, 40, 4] if side == 16 else [30, 6, 4])  # 40: of one storage, not copied
    few = module(tmp_path, {"path": "x.npy"}, train_size=3, validation_size=2)
    assert few._split("train").x.untyped_storage().nbytes() == 3 * side**2  # nothing holds the others


def test_a_part_of_the_published_validation_rows_has_all_classes(tmp_path):
    """Files are often sorted by class."""
    x, y = BYTES[:18], np.repeat(np.arange(3), 6)
    archive(tmp_path, x_train=x, y_train=y, x_val=x, y_val=y, x_test=x, y_test=y)
    labels = module(tmp_path, validation_size=6).materialize(torch.arange(6), "validation").y
    assert labels is not None
    assert labels.tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("dtype", "kind"), [(np.uint8, "levels"), (bool, "binary"), (np.float16, "real"), (float, "real")]
)
def test_the_type_says_what_the_numbers_are(dtype, kind, tmp_path):
    data = module(archive(tmp_path, x=(BYTES > 99 if dtype is bool else BYTES).astype(dtype)))
    assert data.spec.kind == kind
    assert rows(data, "train").dtype == torch.float32
    assert float(rows(data, "train").max()) == {"levels": 1.0, "binary": 1.0, "real": 255.0}[kind]
    if kind == "levels":
        binary = module(tmp_path, binarize="threshold")
        assert binary.spec.kind == "binary"
        assert rows(binary, "test").unique().tolist() == [0, 1]


@pytest.mark.parametrize("words", ["{}_{}", "{1}_{0}"])
@pytest.mark.parametrize("validation", ["validation", "val", "valid"])
def test_ready_made_splits_stay_what_they_are(words, validation, tmp_path):
    sizes = {"train": 7, validation: 4, "test": 3}
    y = {words.format("y", part): np.arange(n) % 2 for part, n in sizes.items()}
    archive(
        tmp_path,
        **{words.format("x", part): np.full((n, 2), i, float) for i, (part, n) in enumerate(sizes.items())},
        **y,
    )
    data = module(tmp_path)
    assert data.spec.n_classes == 2
    for value, split in enumerate(("train", "validation", "test")):
        assert rows(data, split).unique().tolist() == [value]
    assert [data.n_rows(split) for split in ("train", "validation", "test")] == [7, 4, 3]


def test_a_tenth_is_for_testing_and_labels_stay_with_their_rows(tmp_path):
    x = np.arange(1000.0)[:, None]
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", (np.arange(1000) % 10)[:, None].astype(np.int8))
    data = module(tmp_path, {"path": "x.npy", "labels": "y.npy"})
    assert [data.n_rows(split) for split in ("train", "validation", "test")] == [810, 90, 100]
    seen = []
    for split in ("train", "validation", "test"):
        batch = data.materialize(torch.arange(data.n_rows(split)), split)
        assert batch.y is not None
        assert torch.equal(batch.x[:, 0].long() % 10, batch.y)
        seen += batch.x[:, 0].tolist()
        if split == "test":  # not every tenth, which would be one class
            assert len(batch.y.unique()) == 10
    assert sorted(seen) == x[:, 0].tolist()


@pytest.mark.parametrize("x", [BYTES, BYTES / 7])
def test_training_rows_are_evaluated_as_they_are(x, tmp_path):
    """With the labels that were kept from the training, and not mirrored."""
    data = module(archive(tmp_path, x=x, y=np.arange(20) % 2), n_labels=2, flip=True)
    plain = module(tmp_path)
    assert torch.equal(rows(data, "trained"), rows(plain, "train"))
    index = torch.arange(data.n_rows("trained"))
    assert torch.equal(data.materialize(index, "trained").y, plain.materialize(index, "train").y)
    assert (data.materialize(index, "train").y == -1).sum() == len(index) - 2


def test_factors_have_names_and_numbers_of_values(tmp_path):
    factors = np.stack([np.arange(20) % 2, np.arange(20) % 5], 1)
    archive(tmp_path, x=BYTES, factors=factors, factor_names=np.array(["shape", "place"]))
    data = module(tmp_path)
    assert data.spec.n_classes is None
    assert [(factor.name, factor.n_values) for factor in data.source.factors] == [("shape", 2), ("place", 5)]
    y = data.materialize(torch.arange(2), "test").y
    assert y is not None
    assert y.shape == (2, 2)


# -- what is refused -------------------------------------------------------------------------------------

NAN = np.where(np.arange(600).reshape(200, 3) % 100 == 7, np.nan, TABLE)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"z": TABLE}, "arrays.npz holds z, and neither x nor x_train; data.source.x says what it is called"),
        ({"x": NAN}, "arrays.npz, x: 6 of 600 numbers are NaN or infinite, in 6 of 200 rows; leave these rows out"),
        ({"x": BYTES.astype(int)}, "x is int64 of shape (20, 6, 5, 3): x is of uint8 (grey levels), bool (0 or 1), or"),
        ({"x": np.array([{}] * 20)}, "x is object of shape (20,): x is of uint8"),
        ({"x": BYTES[:, :3]}, "it cannot be seen which are the channels; data.source.channels=first or last says so"),
        ({"x": TABLE[:, 0]}, "x is float64 of shape (200,): x is (N, D), (N, H, W), (N, C, H, W) or (N, H, W, C)"),
        ({"x": BYTES % 2}, "its bytes are all 0 or 1, which as grey levels are black; x.astype(bool) has bits"),
        ({"x": TABLE[:5]}, "has 5 rows: too few to keep a tenth for testing"),
        ({"x": TABLE, "y": np.arange(199)}, "y is int64 of shape (199,), and x float64 of shape (200, 3): as many"),
        ({"x": TABLE, "y": TABLE[:, 0]}, "y is float64 of shape (200,): labels are (N,), integers that count from 0;"),
        ({"x": TABLE, "y": np.arange(200) % 2 + 1}, "y has 2 values in 1..2, and is to count them from 0; np.u"),
        ({"x": TABLE, "y": np.eye(200, 2, dtype=int)}, "y is int64 of shape (200, 2): labels are (N,), integers that"),
        ({"x_train": TABLE, "x_val": TABLE}, "holds rows to validate on and none to test on: x_train, x_val"),
        ({"x_train": TABLE, "x_test": TABLE[:, :2]}, "and x_train float64 of shape (200, 3): rows differ"),
        ({"x_train": TABLE, "x_test": TABLE, "y_train": np.arange(200)}, "y of ['train'], and x of ['train', 'test']"),
        ({"x_train": TABLE, "x": TABLE}, "x is there and parts of it too; data.source.x says which"),
        ({"x": TABLE, "y": np.arange(200), "factors": np.eye(200, 2, dtype=int)}, "data.source.y=null or"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_told_in_a_line(arrays, said, tmp_path):
    archive(tmp_path, **arrays)
    data = module(tmp_path)
    with pytest.raises(DataError) as error:
        data.setup()
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("x", "readable"), [(BYTES, True), (BYTES / 7, False), (BYTES[:, 0, :, 0], False)])
def test_a_picture_is_read_as_one_of_the_images_or_refused(x, readable, tmp_path):
    archive(tmp_path, x=x)
    Image.fromarray(BYTES[0]).save(tmp_path / "one.png")
    data = module(tmp_path, validation_size=2)
    if readable:
        expected = torch.from_numpy(np.moveaxis(BYTES[:1], -1, 1).copy()).float() / 255
        assert torch.equal(data.read([tmp_path / "one.png"]), expected)
    else:
        with pytest.raises(UserError, match="mine has no images that a picture could be one of"):
            data.read([tmp_path / "one.png"])


def test_no_file_or_no_array_is_told_in_a_line(tmp_path):
    (tmp_path / "notes.npy").write_text("no array")
    for path, said in (("gone.npz", "no such file"), ("notes.npy", "it is no .npy or .npz file of NumPy's (")):
        with pytest.raises(DataError, match=rf"{path}: {said}.*; data.source.path says which".replace("(", r"\(")):
            Arrays(path).look(tmp_path)


def header(shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return stream.getvalue()


def test_damaged_files_are_told_in_a_line(tmp_path):
    told = r"{}: it is no \.npy or \.npz file of NumPy's \(.+\)"
    (tmp_path / "open.npy").write_bytes(header((10, 5)).replace(b"(10, 5), }", b"(10, 5), (("))
    with pytest.raises(DataError, match=told.format("open.npy")):
        Arrays("open.npy").look(tmp_path)
    archive(tmp_path, x=BYTES)
    path = tmp_path / "arrays.npz"
    whole = path.read_bytes()
    for place, byte in ((8, 99), (6, 1)):  # the method of compression; encrypted
        entry = whole.rindex(b"PK\1\2") + place + 2
        path.write_bytes(whole[:entry] + bytes([byte]) + whole[entry + 1 :])
        with pytest.raises(DataError, match=told.format("arrays.npz")):
            Arrays("arrays.npz").look(tmp_path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x.npy", header((10**13, 5)) + bytes(800))
    source = Arrays("arrays.npz")
    source.look(tmp_path)
    with pytest.raises(DataError, match=r"arrays.npz, x cannot be read \(Unable to allocate"):
        source.load(tmp_path)


def test_two_arrays_for_one_part_are_refused(tmp_path):
    archive(tmp_path, x_train=BYTES, x_val=BYTES, x_valid=BYTES[:5], x_test=BYTES)
    with pytest.raises(DataError, match=r"arrays\.npz holds x_val and x_valid: one is enough$"):
        Arrays("arrays.npz").look(tmp_path)


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_numbers_whose_squares_are_beyond_float64_are_refused(scale, tmp_path):
    """Divided by an infinite scale, all would be zero."""
    with pytest.raises(DataError, match=r"^mine: numbers of .* have no variance in float64; multiplied or divided"):
        module(archive(tmp_path, x=TABLE * scale), standardize="all").setup()


@pytest.mark.parametrize(
    ("x", "options", "said"),
    [
        (TABLE, {"binarize": "dynamic"}, "data.binarize must be 'none' for mine, which has real numbers"),
        (BYTES, {"standardize": "each"}, "data.standardize must be 'none' for mine, whose values are levels"),
        (TABLE, {"flip": True}, "data.flip must be false for mine, which has no images"),
        (TABLE, {"crop": 1}, "data.crop must be 0 for mine, which has no images of bytes, got 1"),
        (BYTES[:, 0, :, 0], {"crop": 1}, "data.crop must be 0 for mine, which has no images of bytes, got 1"),
        (TABLE, {"n_labels": 10}, "data.n_labels must be null for mine, which has no classes"),
        (TABLE, {"validation_size": 180}, "data.validation_size must be below 180, the training rows of mine, got 180"),
    ],
)
def test_options_that_do_not_go_with_the_numbers_are_told_by_their_key(x, options, said, tmp_path):
    data = module(archive(tmp_path, x=x), **options)
    with pytest.raises(ConfigError, match=said):
        data.setup()


def test_numbers_beyond_float32_are_told_or_standardized(tmp_path):
    archive(tmp_path, x=TABLE * 1e40)
    with pytest.raises(
        DataError, match=r"mine: some numbers are too large for float32, .*data.standardize=each or all"
    ):
        module(tmp_path).setup()
    assert rows(module(tmp_path, standardize="each"), "train").isfinite().all()


# -- units -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("images", [False, True])
@pytest.mark.parametrize("standardize", ["none", "each", "all"])
def test_the_rows_that_are_trained_on_are_standardized_and_restored(standardize, images, tmp_path):
    x = TABLE if not images else np.random.default_rng(2).normal(size=(60, 2, 4, 6)) * [[[[3]], [[0.5]]]] + 7
    data = module(archive(tmp_path, x=x), standardize=standardize)
    train = rows(data, "train").double()
    over = {"none": None, "all": tuple(range(x.ndim)), "each": (0, 2, 3) if images else (0,)}[standardize]
    if over is not None:
        assert train.mean(over).abs().max() < 1e-6
        assert (train.std(over, correction=0) - 1).abs().max() < 1e-6
    everything = torch.cat([rows(data, split) for split in ("train", "validation", "test")])
    restored = data.restored(everything).flatten(1)
    lost = 1e-6 if standardize == "each" or images else 2**-23 * np.abs(x).max()  # one scale for all columns
    np.testing.assert_allclose(np.sort(restored[:, 0]), np.sort(x.reshape(len(x), -1)[:, 0]), rtol=1e-6, atol=lost)
    torch.testing.assert_close(data.standardized(data.restored(everything)), everything)
    if images:
        shown = data.shown(rows(data, "train"))
        assert float(shown.min()) == pytest.approx(0, abs=1e-6)
        assert float(shown.max()) == pytest.approx(1)
    elif standardize == "each":  # a hundred million times the last digit of float32 at 1e6
        assert data.spec.log_volume == pytest.approx(
            sum(math.log(s) for s in np.std(restored[: len(train)].numpy(), 0))
        )


def test_what_never_varies_is_only_centered(tmp_path):
    x = TABLE.copy()
    x[:, 1] = 0.1
    data = module(archive(tmp_path, x=x), standardize="each")
    assert rows(data, "test")[:, 1].tolist() == [0.0] * 20
    assert data.units.scale[1] == 1


def test_a_density_is_that_of_the_numbers_in_the_file():
    u, mean = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    scale, location = torch.tensor([2.0, 0.1, 30.0]), 7.0
    likelihood = Rescaled(Normal((3,), "fixed", 0.5), float(scale.log().sum()))
    expected = torch.distributions.Normal(location + scale * mean, 0.5 * scale).log_prob(location + scale * u).sum(1)
    torch.testing.assert_close(likelihood.log_prob(mean.unsqueeze(0), u)[0], expected)
    torch.testing.assert_close(likelihood.steady_log_prob(mean.unsqueeze(0), u)[0], expected)


@pytest.mark.parametrize(("x", "standardize"), [(TABLE, "each"), (BYTES, "none")])
def test_a_run_keeps_what_its_model_needs_without_the_file(x, standardize, tmp_path):
    data = module(archive(tmp_path, x=x, y=np.arange(len(x)) % 4), standardize=standardize)
    spec = data.spec
    data.save_state(tmp_path)
    (tmp_path / "arrays.npz").unlink()
    again = module(tmp_path, standardize=standardize)
    again.load_state(tmp_path)
    assert again.spec == spec
    x = torch.randn(3, 3)
    assert torch.equal(again.restored(x), data.restored(x))
    (tmp_path / "arrays.json").write_text("{}")
    with pytest.raises(DataError, match=r"arrays.json does not hold the arrays of this run \(KeyError"):
        module(tmp_path).load_state(tmp_path)


# -- the whole -------------------------------------------------------------------------------------------


def test_a_linear_vae_finds_the_likelihood_of_probabilistic_pca(tmp_path, monkeypatch, capsys):
    """Tipping & Bishop 1999: its maximum is known, and scikit-learn gives the log-likelihood of other rows at it."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(1)
    x = 20 * (random.normal(size=(3000, 2)) @ random.normal(size=(2, 5)) + 0.5 * random.normal(size=(3000, 5))) + 100
    archive(tmp_path, x_train=x[:1800], x_val=x[1800:2000], x_test=x[2000:])
    words = ["~experiment", "data=arrays", f"paths.data_dir={tmp_path}", "data.standardize=all", "model=vae"]
    words += ["model/encoder=mlp", "model/decoder=mlp", "model.encoder.hidden=[]", "model.decoder.hidden=[]"]
    words += ["model/likelihood=normal", "model.latent_dim=2", "trainer.max_epochs=20", "optimizer.lr=1e-2"]
    assert main(["train", *words, "data.batch_size=50", "evaluation.n_samples=50"]) == 0
    (file,) = tmp_path.glob("outputs/arrays/*/result.json")
    metrics = json.loads(file.read_text())["metrics"]
    exact = -PCA(2).fit(x[:1800]).score(x[2000:])
    assert exact - 0.02 < metrics["test/nll"] < exact + 0.06
    assert metrics["test/nll"] < -metrics["test/elbo"] + 0.02 < exact + 0.1
    assert (file.parent / "media/samples.png").is_file()
    assert "rows)" in capsys.readouterr().out

    model, data = load_run(file.parent)
    assert isinstance(model, VariationalAutoencoder)
    assert isinstance(data, ArrayDataModule)
    for command, name in (
        ("sample", "samples-n2000-seed0.csv"),
        ("reconstruct", "reconstructions-test-n2000.csv"),
        ("embed", "embedding-test-n2000.csv"),
    ):
        assert main([command, f"run={file.parent}", "n=2000"]) == 0
        table = np.loadtxt(file.parent / "media" / name, delimiter=",", skiprows=1)
        if command == "sample":
            deviation = np.sqrt(np.diag(np.cov(x.T)))
            assert np.abs((table.mean(0) - x.mean(0)) / deviation).max() < 0.15
            assert np.abs(np.cov(table.T) / np.outer(deviation, deviation) - np.corrcoef(x.T)).max() < 0.15
        elif command == "reconstruct":
            np.testing.assert_allclose(table[:, 1:6], x[2000:], rtol=1e-4)
            again = data.restored(model.reconstruct(data.standardized(torch.from_numpy(x[2000:]))))
            np.testing.assert_allclose(table[:, 6:], again, rtol=1e-4)
    for command in ("interpolate", "traverse"):
        assert main([command, f"run={file.parent}"]) == 2
        assert "no images to draw; sample, reconstruct and embed write its rows as CSV" in capsys.readouterr().err
    assert main(["evaluate", f"run={file.parent}", "quality=true"]) == 2
    assert "quality=true" in capsys.readouterr().err
    assert main(["evaluate", f"run={file.parent}", "n_samples=50"]) == 0
