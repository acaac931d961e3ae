"""Every file in conf/data that is no image set builds from its configuration, and its batches are what its
specification says: the contract that models are built on."""

from pathlib import Path
from typing import Any

import pytest
import torch

from attelbo.data import BOS, EOS, IGNORE, PAD
from attelbo.errors import DataError
from attelbo.experiments.configuration import check, compose
from attelbo.experiments.listing import choices, package_folder
from attelbo.models import build_data

SPLITS = ("train", "validation", "test")
IMAGES = {
    *(
        "arrays",
        "binarized_mnist",
        "cars3d",
        "celeba",
        "cifar10",
        "cifar100",
        "digits",
        "dsprites",
        "fashion_mnist",
        "image_folder",
    ),
    *("kmnist", "mnist", "mnist_pixels", "multi_digits", "multi_mnist", "omniglot", "omniglot_small", "shapes3d"),
    *("mpi3d_real", "mpi3d_realistic", "mpi3d_toy", "small_norb", "svhn", "imagenet32", "imagenet64"),
}
# multi30k_en_de: the files of multi30k, read the other way round.
OTHERS = sorted(set(choices([package_folder()])["data"]) - IMAGES - {"sprites", "multi30k_en_de"})

WORDS = "a man in an orange hat is looking at something that is black ."
FILES = {
    "parallel": {f"parallel/{split}.{side}": f"{WORDS}\n" * 20 for split in SPLITS for side in ("source", "target")},
    "ptb": {f"ptb/ptb.{split}.txt": f" {WORDS} \n" * 10 for split in ("train", "valid", "test")},
    "ptb_sentences": {f"ptb/ptb.{split}.txt": f" {WORDS} \n" * 10 for split in ("train", "valid", "test")},
    "sentences": {"sentences.txt": f"{WORDS}\n" * 40},
    "sst2": {
        f"sentence_classification/stsa.binary.{split}": f"0 {WORDS}\n1 {WORDS}\n" for split in ("train", "dev", "test")
    },
    "text": {"text/input.txt": f"{WORDS} " * 300},
    "text_csv": {"text_csv/train.csv": "text,label\n" + f"{WORDS},x\n{WORDS},y\n" * 20},
    "trec": {
        "sentence_classification/TREC.train.all": f"0 {WORDS}\n1 {WORDS}\n" * 10,
        "sentence_classification/TREC.test.all": f"1 {WORDS}\n",
    },
}
"""Of the data that read files: small ones in their place."""
REAL = {
    *("ag_news", "enwik8", "imdb", "multi30k", "shakespeare", "text8", "wikitext103", "wikitext2"),
}
"""Data of published files, whose checksums small ones would not have."""


FEW = dict.fromkeys(
    ("gp_matern", "gp_periodic", "gp_rbf", "max_of_set", "mixtures"), ("data.validation_size=40", "data.test_size=40")
)
"""Of the data that are drawn: fewer rows to evaluate on."""


def configured(name: str, folder: Path, *words: str) -> dict[str, Any]:
    """The configuration of data; the small files that they read are put in their place."""
    for path, content in FILES.get(name, {}).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    composed = compose("train", ["~experiment", f"data={name}", f"paths.data_dir={folder}", *words])
    check(composed)
    return composed.config


@pytest.mark.parametrize("name", OTHERS)
def test_batches_are_what_the_specification_says(name, tmp_path, data_folder):
    real = name in REAL
    data = build_data(configured(name, data_folder if real else tmp_path, *FEW.get(name, ())))
    try:
        spec = data.spec
    except DataError:
        if not real:
            raise
        pytest.skip(f"no {name} in {data_folder}: set ATTELBO_DATA_DIR to a folder of data sets")
    assert spec.name == name
    for split in (*SPLITS, "trained"):
        rows = min(data.n_rows(split), 40)
        index = torch.arange(rows) * (data.n_rows(split) - 1) // max(rows - 1, 1)
        batch = data.materialize(index, split)
        assert torch.equal(batch.index, index)
        if split != "train":
            for part, again in zip(batch, data.materialize(index, split), strict=True):
                assert part is None or torch.equal(part, again)
        assert batch.x.ndim == 1 + len(spec.shape)
        if spec.kind == "tokens":
            check_tokens(batch, spec)
        else:
            assert spec.kind in ("set", "function")
            assert batch.x.dtype == torch.float32
            assert batch.x.shape[1:] == spec.shape
            assert batch.segments is not None
            assert int(batch.segments.max()) == (1 if spec.kind == "function" else 0)
            assert int(batch.segments.min()) >= -1
        if spec.kind == "function":
            assert batch.y.dtype == torch.float32
            assert batch.y.shape[1:] == spec.target.shape
        elif spec.n_classes is not None:
            assert batch.y.shape == (rows,)
            assert set(batch.y.tolist()) <= set(range(spec.n_classes))
        elif spec.target is not None and spec.target.kind == "tokens":
            check_targets(batch, spec)
    order = data.training_rows(0, 0, 1)
    assert len(order) == data.rows_per_epoch
    assert 0 <= int(order.min()) <= int(order.max()) < data.n_rows("train")


def check_tokens(batch, spec) -> None:
    assert batch.x.dtype == torch.int64
    assert batch.x.shape[1] <= spec.shape[0]
    assert 0 <= int(batch.x.min()) <= int(batch.x.max()) < spec.n_tokens
    assert spec.token_lengths is None or len(spec.token_lengths) == spec.n_tokens
    if spec.answer_length is not None:
        assert ((batch.y != IGNORE).sum(1) == spec.answer_length).all()


def check_targets(batch, spec) -> None:
    assert batch.y.dtype == torch.int64
    assert batch.y.shape[1] <= spec.target.shape[0]
    assert int(batch.y.max()) < spec.target.n_tokens
    if spec.target is spec or (spec.target.shape == spec.shape and not spec.pads):
        inside = (batch.y[:, :-1] != IGNORE) & (batch.y[:, 1:] != IGNORE)
        assert torch.equal(batch.y[:, :-1][inside], batch.x[:, 1:][inside])
    else:
        for sentences in (batch.x, batch.y):
            assert (sentences[:, 0] == BOS).all()
            assert ((sentences == EOS).sum(1) == 1).all()
            behind = (sentences == EOS).cumsum(1) - (sentences == EOS).long() > 0
            assert torch.equal(behind, sentences == PAD)


@pytest.mark.parametrize("name", ["text", "text_csv", "parallel"])
@pytest.mark.parametrize("tokenizer", choices([package_folder()])["data/tokenizer"])
def test_every_tokenizer_goes_with_every_text(name, tokenizer, tmp_path):
    words = [f"data/tokenizer={tokenizer}"]
    if name == "parallel":
        words.append(f"data/tokenizer@data.target_tokenizer={tokenizer}")
    config = configured(name, tmp_path, *words, "data.train_size=5")
    data, again = build_data(config), build_data(config)
    spec = data.spec
    data.save_state(tmp_path)
    again.load_state(tmp_path)
    assert again.spec == spec


@pytest.mark.parametrize("documents", ["stream", "packed", "padded", "bucketed"])
def test_documents_are_a_choice(documents, tmp_path):
    data = build_data(configured("text", tmp_path, f"data.documents={documents}", "data.windows=consecutive"))
    batch = data.materialize(torch.arange(1), "validation")
    assert (batch.segments is None) == (documents == "stream")
