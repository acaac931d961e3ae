"""Text: vocabularies, files, parallel texts. The data modules are in ``attelbo.data``."""

from attelbo.data.text.aligned import AlignedFiles, Multi30k, Pairs, ParallelSource, ParallelText
from attelbo.data.text.dates import Dates
from attelbo.data.text.tokenizers import BPE, Bytes, Characters, Words
from attelbo.data.text.vocabulary import Tokenizer

__all__ = [
    "BPE",
    "AlignedFiles",
    "Bytes",
    "Characters",
    "Dates",
    "Multi30k",
    "Pairs",
    "ParallelSource",
    "ParallelText",
    "Tokenizer",
    "Words",
]
