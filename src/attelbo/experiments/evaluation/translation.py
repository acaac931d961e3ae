"""Translations of a whole split against their references: BLEU.

Source: Papineni, Roukos, Ward & Zhu 2002, "BLEU: a method for automatic evaluation of machine translation"; computed by
sacrebleu (Post 2018, "A call for clarity in reporting BLEU scores").
"""

from typing import Literal

from attelbo.data import ParallelDataModule
from attelbo.experiments.evaluation.conditions import Conditions
from attelbo.experiments.terminal import tracked
from attelbo.metrics import Measure
from attelbo.models import SequenceToSequence

_RESAMPLES = 1000
"""Of the sentences of a split, for the standard error."""
_TO_SIGMA = 1.96
"""Half the width of a 95 % interval, in standard errors."""


def translations_of(model: SequenceToSequence, data: ParallelDataModule, conditions: Conditions) -> list[str]:
    """The model's translation of each source of a split, by the search that it is configured with."""
    found: list[list[int]] = []
    for rows in tracked(conditions.all_rows(data), "translations"):
        found += model.translate(data.materialize(rows, conditions.split).x)
    return [data.target_tokenizer.decode(tokens) for tokens in found]


def evaluate_translation(
    model: SequenceToSequence, data: ParallelDataModule, conditions: Conditions
) -> dict[str, float]:
    """BLEU of all translations of a split, 0..100, and its standard error by a bootstrap over sentences; empty where no
    translation has four words. Of a single sentence there is no error."""
    from sacrebleu.metrics.bleu import BLEU  # slow to import

    translations = translations_of(model, data, conditions)
    metric = BLEU(tokenize=_tokenizer(data), force=True)
    score = metric.corpus_score(translations, [data.references(conditions.split)], n_bootstrap=_RESAMPLES)
    if score.totals[-1] == 0:
        return {}
    key = conditions.key("bleu")
    return {key: score.score} | ({f"{key}_std_error": score._ci / _TO_SIGMA} if len(translations) > 1 else {})


def translation_measure(model: SequenceToSequence, data: ParallelDataModule) -> Measure:
    """The measure of ``evaluate_translation``."""
    import sacrebleu

    tokens = "own words" if _tokenizer(data) == "none" else "13a"
    search = "greedy search" if model.beam == 1 else f"beam of {model.beam}, length penalty {model.length_penalty:g}"
    note = f"{search}; sacrebleu {sacrebleu.__version__}, {tokens}"
    return Measure("bleu", "BLEU", "of 100", note=note, better="more")


def _tokenizer(data: ParallelDataModule) -> Literal["none", "13a"]:
    """The tokenization of sacrebleu: none where decoded texts have blanks between all their tokens, some of which, such
    as <unk>, it would split again."""
    return "none" if data.target_tokenizer.splits_words else "13a"
