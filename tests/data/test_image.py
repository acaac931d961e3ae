"""The data module: fixed splits, explicit binarization, blocks and batches."""

from pathlib import Path

import pytest
import torch

from attelbo.data import Batch, Block, DataSpec
from attelbo.data.sources import Digits
from attelbo.errors import ConfigError

SPLITS = ("train", "validation", "test")


def everything(data, split):
    return data.materialize(torch.arange(data.n_rows(split)), split)


def test_specification_is_known_before_files_are_read(digits):
    source = {"_target_": "attelbo.data.sources.MNIST"}
    data = digits(name="mnist", source=source, root="/nowhere", binarize="static")
    assert data.spec == DataSpec("mnist", (1, 28, 28), "binary", 10)
    assert digits().spec == DataSpec("digits", (1, 8, 8), "levels", 10)


def test_splits_are_disjoint_fixed_and_complete(digits):
    data = digits()
    assert [data.n_rows(split) for split in SPLITS] == [1298, 144, 355]
    train, test = Digits().load(Path())
    ours = torch.cat([everything(data, split).x for split in ("train", "validation")])
    as_rows = [tuple(row) for row in ours.mul(255).round().to(torch.uint8).flatten(1).tolist()]
    assert sorted(as_rows) == sorted(tuple(row) for row in train.x.flatten(1).tolist())
    assert torch.equal(everything(data, "test").x, test.x / 255)
    assert digits(seed=2).checksums() == data.checksums()
    assert digits(validation_size=143).checksums()["validation"] != data.checksums()["validation"]


def test_split_is_pinned(digits):
    """A change of these sums means that results of an earlier version no longer compare."""
    pinned = {"train": "3ca0b3153935", "validation": "9effff2fe748", "test": "c828ed8d66d4"}
    assert {split: checksum[:12] for split, checksum in digits().checksums().items()} == pinned


def test_files_are_read_once(digits, monkeypatch):
    calls = []
    load = Digits.load
    monkeypatch.setattr(Digits, "load", lambda self, root: calls.append(root) or load(self, root))
    data = digits(root="somewhere")
    data.setup("fit")
    data.setup("test")
    data.checksums()
    assert calls == [Path("somewhere")]


def test_train_size_keeps_the_first_training_rows(digits):
    few = digits(train_size=10)
    assert [few.n_rows(split) for split in SPLITS] == [10, 144, 355]
    assert torch.equal(everything(few, "train").x, everything(digits(), "train").x[:10])
    assert few.checksums()["validation"] == digits().checksums()["validation"]


@pytest.mark.parametrize("binarize", ["none", "dynamic"])
def test_an_evaluation_sees_training_rows_as_it_sees_others(digits, binarize):
    """In their order, not moved, drawn once, with all of their labels."""
    data = digits(binarize=binarize, flip=True, crop=2, n_labels=20, train_size=200)
    seen = everything(data, "trained")
    assert torch.equal(seen.x, everything(data, "trained").x)
    assert not torch.equal(everything(data, "train").x, everything(data, "train").x)
    # Where all rows but one are for validation, these are drawn as validation rows.
    others = everything(digits(binarize=binarize, validation_size=1441), "validation")
    order = torch.cat([everything(digits(validation_size=144), split).x for split in ("validation", "train")])
    levels = everything(digits(validation_size=1441), "validation").x
    place = (order[144:344].flatten(1).unsqueeze(1) == levels.flatten(1)).all(-1).byte().argmax(1)
    known = (levels[place] == order[144:344]).flatten(1).all(1)
    assert int(known.sum()) >= 199
    assert torch.equal(seen.x[known], others.x[place][known])
    assert torch.equal(seen.y[known], others.y[place][known])
    assert int((everything(data, "train").y >= 0).sum()) == 20


@pytest.mark.parametrize(
    ("binarize", "train_varies"), [("none", False), ("threshold", False), ("static", False), ("dynamic", True)]
)
def test_binarization(digits, binarize, train_varies):
    data, levels = digits(binarize=binarize), digits()
    for split in SPLITS:
        x, plain = everything(data, split).x, everything(levels, split).x
        varies = not torch.equal(x, everything(data, split).x)
        assert varies == (train_varies and split == "train")
        if binarize == "none":
            assert torch.equal(x, plain)
        elif binarize == "threshold":
            assert torch.equal(x, (plain > 0.5).float())
        else:
            assert set(x.unique().tolist()) == {0.0, 1.0}
            assert (x[plain == 0] == 0).all()
            assert (x[plain == 1] == 1).all()
            error = (plain * (1 - plain)).sum().sqrt()
            assert abs((x - plain).sum()) < 4.5 * error
    assert data.spec.kind == ("levels" if binarize == "none" else "binary")


@pytest.mark.parametrize("binarize", ["static", "dynamic"])
def test_evaluation_sees_the_same_pixels_in_every_run(digits, binarize):
    first, second = digits(binarize=binarize, seed=1), digits(binarize=binarize, seed=2)
    for split in ("validation", "test"):
        assert torch.equal(everything(first, split).x, everything(second, split).x)
    # A row's pixels do not depend on how many other rows are set aside.
    more = digits(binarize=binarize, validation_size=200)
    assert torch.equal(everything(more, "validation").x[:144], everything(first, "validation").x)


def test_flips_are_for_training_only(digits):
    data, plain = digits(flip=True), digits()
    assert not torch.equal(everything(data, "train").x, everything(plain, "train").x)
    for split in ("validation", "test"):
        assert torch.equal(everything(data, split).x, everything(plain, split).x)


def test_crops_are_for_training_only(digits):
    data, plain = digits(crop=1), digits()
    assert not torch.equal(everything(data, "train").x, everything(plain, "train").x)
    for split in ("validation", "test"):
        assert torch.equal(everything(data, split).x, everything(plain, split).x)
    assert data.checksums() == plain.checksums()
    with pytest.raises(ValueError, match="crop must be at least 0, got -1"):
        digits(crop=-1)


@pytest.mark.parametrize("options", [{}, {"binarize": "threshold"}, {"crop": 2, "flip": True}])
def test_pixel_moments_are_those_of_the_training_images(digits, options):
    mean, std = digits(**options).pixel_moments()
    x = everything(digits(**{"binarize": "none"} | {k: v for k, v in options.items() if k == "binarize"}), "train").x
    torch.testing.assert_close(mean, x.double().mean((0, 2, 3)))
    torch.testing.assert_close(std, x.double().std((0, 2, 3), correction=0))


@pytest.mark.parametrize("options", [{}, {"binarize": "threshold"}, {"binarize": "static"}, {"crop": 2, "flip": True}])
def test_the_mean_is_that_of_the_training_images(digits, options):
    as_stored = {key: value for key, value in options.items() if key == "binarize"}
    x = everything(digits(**{"binarize": "none"} | as_stored), "train").x
    torch.testing.assert_close(digits(**options).mean(), x.double().mean(0))


def test_the_mean_of_what_is_drawn_is_that_of_the_levels(digits):
    torch.testing.assert_close(digits(binarize="dynamic").mean(), digits(binarize="none").mean())


def test_training_blocks_go_to_the_stepper(digits):
    data = digits(minibatches_per_block=16)
    blocks = list(data.train_dataloader())
    assert [len(block.index) for block in blocks] == [512, 512, 274]
    assert data.on_after_batch_transfer(blocks[0], 0) is blocks[0]
    minibatches = data.minibatches(blocks[2])
    assert [len(index) for index in minibatches] == [32] * 8 + [18]
    assert torch.equal(torch.cat(list(minibatches)), blocks[2].index)


def test_plain_batches_without_blocks(digits):
    data = digits(minibatches_per_block=0)
    blocks = list(data.train_dataloader())
    assert len(blocks) == len(data.train_dataloader()) == 41
    batch = data.on_after_batch_transfer(data.transfer_batch_to_device(blocks[0], torch.device("cpu"), 0), 0)
    assert isinstance(batch, Batch)
    assert batch.x.shape == (32, 1, 8, 8)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_evaluation_sees_every_row_once_in_order(digits, split):
    data = digits(binarize="dynamic")
    loader = data.val_dataloader() if split == "validation" else data.test_dataloader()
    batches = [data.on_after_batch_transfer(block, 0) for block in loader]
    assert len(batches) == len(loader)
    assert torch.equal(torch.cat([batch.index for batch in batches]), torch.arange(data.n_rows(split)))
    assert torch.equal(torch.cat([batch.x for batch in batches]), everything(data, split).x)


def test_other_batches_pass_through(digits):
    batch = torch.zeros(3)
    assert digits().transfer_batch_to_device(batch, torch.device("cpu"), 0) is batch
    assert digits().on_after_batch_transfer(batch, 0) is batch


def test_indices_move_with_the_block(digits):
    block = Block(torch.arange(3), 2, "train")
    assert digits().transfer_batch_to_device(block, torch.device("meta"), 0).index.device.type == "meta"


@pytest.mark.parametrize(
    ("name", "value", "least"),
    [
        ("batch_size", 0, 1),
        ("eval_batch_size", -1, 1),
        ("validation_size", 0, 1),
        ("minibatches_per_block", -1, 0),
        ("train_size", 0, 1),
    ],
)
def test_numbers_out_of_range_are_refused_by_name(digits, name, value, least):
    with pytest.raises(ValueError, match=f"^{name} must be at least {least}, got {value}$"):
        digits(**{name: value})


@pytest.mark.parametrize(
    ("options", "copied"),
    [
        ({}, False),
        ({"train_size": 900, "n_labels": 20, "flip": True}, False),
        ({"train_size": 100}, True),
        ({"binarize": "threshold"}, True),
    ],
)
def test_a_source_that_gives_its_rows_away_is_divided_where_it_lies(digits, monkeypatch, options, copied):
    def splits():
        data = digits(**options)
        return [data._split(split) for split in (*SPLITS, "trained")]

    loaded, load = [], Digits.load
    expected = splits()
    monkeypatch.setattr(Digits, "gives_away", True)
    monkeypatch.setattr(Digits, "load", lambda self, root: loaded.append(load(self, root)) or loaded[-1])
    found = splits()
    for one, other in zip(expected, found, strict=True):
        assert torch.equal(one.x, other.x)
        assert torch.equal(one.y, other.y)
        assert one.checksum() == other.checksum()
    places = {split.x.untyped_storage().data_ptr() for split in found[:2]}
    assert (places != {loaded[0].train.x.untyped_storage().data_ptr()}) == copied


def test_segments_stay_with_images_that_a_source_gives_away(digits, monkeypatch):
    load = Digits.load
    with_segments = lambda images: images._replace(segments=(images.x[:, 0] > 128).to(torch.int8))  # noqa: E731
    monkeypatch.setattr(Digits, "gives_away", True)
    monkeypatch.setattr(Digits, "load", lambda self, root: tuple(map(with_segments, load(self, root))))
    data = digits()
    for split in ("validation", "test", "trained"):
        batch = data.materialize(torch.arange(data.n_rows(split)), split)
        assert torch.equal(batch.segments, (255 * batch.x[:, 0] > 128).long())


def test_a_validation_split_that_takes_everything_is_refused(digits):
    with pytest.raises(ConfigError, match=r"data\.validation_size must be below 1,442, .* digits, got 1,442"):
        digits(validation_size=1442).setup()


def test_binary_data_are_not_binarized_again(digits):
    with pytest.raises(ValueError, match=r"^binarize must be 'none' for dsprites"):
        digits(name="dsprites", source={"_target_": "attelbo.data.sources.DSprites"}, binarize="dynamic")
