"""Text: vocabularies, files, corpora, parallel texts. The data modules are in ``attelbo.data``."""

from attelbo.data.text.ag_news import AGNews
from attelbo.data.text.aligned import AlignedFiles, Multi30k, Pairs, ParallelText
from attelbo.data.text.corpora import (
    Corpus,
    ReferenceSentences,
    ReferenceText,
    TextFile,
    TextFiles,
    TinyShakespeare,
)
from attelbo.data.text.dates import Dates
from attelbo.data.text.imdb import IMDB
from attelbo.data.text.labelled import (
    Labelled,
    LabelledCSV,
    LabelledLines,
    LabelledText,
    UnicodeNames,
)
from attelbo.data.text.source import Source
from attelbo.data.text.tokenizers import BPE, Bytes, Characters, Words
from attelbo.data.text.vocabulary import Tokenizer
from attelbo.data.text.wikipedia import Enwik8, Text8, WikiText

__all__ = [
    "BPE",
    "IMDB",
    "AGNews",
    "AlignedFiles",
    "Bytes",
    "Characters",
    "Corpus",
    "Dates",
    "Enwik8",
    "Labelled",
    "LabelledCSV",
    "LabelledLines",
    "LabelledText",
    "Multi30k",
    "Pairs",
    "ParallelText",
    "ReferenceSentences",
    "ReferenceText",
    "Source",
    "Text8",
    "TextFile",
    "TextFiles",
    "TinyShakespeare",
    "Tokenizer",
    "UnicodeNames",
    "WikiText",
    "Words",
]
