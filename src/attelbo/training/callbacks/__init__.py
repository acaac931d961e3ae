"""The callbacks of a training run; each is a node in ``conf/callbacks``."""

from attelbo.training.callbacks.attention_maps import AttentionMaps
from attelbo.training.callbacks.checkpointing import Checkpoint, chosen_by
from attelbo.training.callbacks.clusters import Clusters
from attelbo.training.callbacks.confusion import Confusion
from attelbo.training.callbacks.depths import Depths
from attelbo.training.callbacks.early_stopping import EarlyStopping
from attelbo.training.callbacks.epoch_weights import EpochWeights
from attelbo.training.callbacks.exhibit import Exhibit
from attelbo.training.callbacks.functions import Functions
from attelbo.training.callbacks.learning_rate import LearningRate
from attelbo.training.callbacks.nan_guard import NanGuard, check_finite
from attelbo.training.callbacks.objects import Objects
from attelbo.training.callbacks.pictures import Pictures
from attelbo.training.callbacks.progress import Progress
from attelbo.training.callbacks.pruning import Pruned, Pruning
from attelbo.training.callbacks.segments import Segments
from attelbo.training.callbacks.sentences import Sentences
from attelbo.training.callbacks.strokes import Strokes
from attelbo.training.callbacks.texts import Answers, TextSamples
from attelbo.training.callbacks.translations import Translations
from attelbo.training.callbacks.weight_average import WeightAverage

__all__ = [
    "Answers",
    "AttentionMaps",
    "Checkpoint",
    "Clusters",
    "Confusion",
    "Depths",
    "EarlyStopping",
    "EpochWeights",
    "Exhibit",
    "Functions",
    "LearningRate",
    "NanGuard",
    "Objects",
    "Pictures",
    "Progress",
    "Pruned",
    "Pruning",
    "Segments",
    "Sentences",
    "Strokes",
    "TextSamples",
    "Translations",
    "WeightAverage",
    "check_finite",
    "chosen_by",
]
