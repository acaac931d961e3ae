"""BLEU of a split, against sacrebleu itself."""

from pathlib import Path

import pytest
import sacrebleu
import torch

from attelbo.data import ParallelDataModule
from attelbo.data.batch import EOS
from attelbo.experiments.evaluation import Conditions, evaluate_model
from attelbo.experiments.settings import Evaluation
from attelbo.models import SequenceToSequence
from translators import transformer

SETTINGS = Evaluation(1, None, 2, None, "best")
TARGETS = [
    "A man sleeps in a green t-shirt, on the couch.",
    "Two dogs are playing in the snow near the house.",
    "The girl isn't reading the blue book.",
    "A boy jumps over a small dog.",
    "People walk in the rain.",
]


@pytest.fixture
def data(tmp_path: Path) -> ParallelDataModule:
    sunny = [line.replace("rain", "sun") for line in TARGETS]
    for split, targets in (("train", 2 * sunny), ("validation", TARGETS), ("test", TARGETS)):
        (tmp_path / f"{split}.source").write_text("".join(f"satz {i} hier .\n" for i in range(len(targets))))
        (tmp_path / f"{split}.target").write_text("".join(f"{line}\n" for line in targets))
    names = {split: [f"{split}.source", f"{split}.target"] for split in ("train", "validation", "test")}
    words = {"_target_": "attelbo.data.text.Words", "lower": True, "min_freq": 2}
    return ParallelDataModule(
        name="captions",
        source={"_target_": "attelbo.data.text.AlignedFiles", **names},
        tokenizer=words,
        target_tokenizer=words,
        root=str(tmp_path),
        seed=0,
        batch_size=2,
        eval_batch_size=2,
        max_length=20,
    )


class Careless(SequenceToSequence):
    """Gives back each target without its second token."""

    def translate(self, source, **options):
        assert not options  # the search is the model's own
        rows = self.told[: len(source)]
        self.told = self.told[len(source) :]
        return rows


def model_for(data: ParallelDataModule) -> Careless:
    adam, constant = {"_target_": "torch.optim.Adam"}, {"_target_": "attelbo.models.schedulers.Constant"}
    n = data.spec.n_tokens, data.spec.target.n_tokens
    model = Careless(transformer(n_tokens=n, max_length=20).float(), 19, adam, constant)
    rows = data.materialize(torch.arange(len(TARGETS)), "test").y
    model.told = [[token for token in (row[1:2] + row[3:]) if token > EOS] for row in rows.tolist()]
    return model


def test_equals_sacrebleu_on_the_same_strings(data, tmp_path):
    model = model_for(data)
    translations = [data.target_tokenizer.decode(tokens) for tokens in model.told]
    result = evaluate_model(model, data, Conditions("test", SETTINGS), tmp_path)
    references = [
        "a man sleeps in a green t - shirt , on the couch .",
        "two dogs are playing in the snow near the house .",
        "the girl isn ' t reading the blue book .",
        "a boy jumps over a small dog .",
        "people walk in the rain .",
    ]
    assert data.references("test") == references
    assert any("<unk>" in line for line in translations)  # rain; references are whole all the same
    expected = sacrebleu.corpus_bleu(translations, [references], tokenize="none", force=True).score
    # "<unk>" is one word, not three.
    assert expected > sacrebleu.corpus_bleu(translations, [references], force=True).score
    assert 5 < expected < 90
    assert result["metrics"]["test/bleu"] == pytest.approx(expected, abs=1e-9)
    assert result["metrics"]["test/bleu_std_error"] > 0
    assert result["measures"][0].key == "bleu"
    assert result["measures"][0].note == f"greedy search; sacrebleu {sacrebleu.__version__}, own words"


def test_references_of_training_pairs_are_those_of_its_rows(data, tmp_path):
    """Without those that were too long, or too many."""
    lines = (tmp_path / "train.target").read_text().splitlines()
    lines[2] = " ".join(3 * [lines[2]])
    (tmp_path / "train.target").write_text("\n".join(lines) + "\n")
    data.drop_longer, data.train_size = True, 7
    rows = data.materialize(torch.arange(data.n_rows("trained")), "trained").y
    decoded = [data.target_tokenizer.decode([t for t in row if t > EOS]) for row in rows.tolist()]
    assert data.references("trained") == decoded
    assert len(decoded) == 6


def test_a_single_sentence_has_no_standard_error(data, tmp_path, monkeypatch):
    model = model_for(data)
    monkeypatch.setattr(data, "n_rows", lambda split: 1)
    monkeypatch.setattr(data, "references", lambda split: ["a man sleeps in a green t - shirt , on the couch ."])
    metrics = evaluate_model(model, data, Conditions("test", SETTINGS), tmp_path)["metrics"]
    assert "test/bleu" in metrics
    assert "test/bleu_std_error" not in metrics


def test_no_four_words_in_a_row_have_no_bleu(data, tmp_path):
    model = model_for(data)
    model.told = [row[:3] for row in model.told]
    result = evaluate_model(model, data, Conditions("test", SETTINGS), tmp_path)
    assert "test/bleu" not in result["metrics"]
    assert "test/exact" in result["metrics"]
