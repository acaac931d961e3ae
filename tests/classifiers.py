"""Small classifiers and rows for them."""

from typing import Any

import torch

from attelbo.data.batch import Batch, DataSpec
from attelbo.models import Classifier, build_text_classifier, build_vision_transformer

IMAGES = DataSpec("toys", (1, 4, 6), "levels", n_classes=3)
TEXTS = DataSpec("words", (7,), "tokens", n_classes=2, n_tokens=11, pads=True)
TRAINED: dict[str, Any] = {
    "optimizer": {"_target_": "torch.optim.Adam", "lr": 1e-2},
    "scheduler": {"_target_": "attelbo.models.schedulers.Constant"},
}
PARTS: dict[str, Any] = {
    "dim": 8,
    "attention": {"_target_": "attelbo.attention.MultiHeadAttention", "heads": 2},
    "score": {"_target_": "attelbo.attention.ScaledDot"},
    "normalizer": {"_target_": "attelbo.attention.Softmax"},
    "position": {"_target_": "attelbo.attention.Learned"},
    "network": {"_target_": "attelbo.networks.Transformer", "layers": 1, "hidden": 16},
    "pooling": {"_target_": "attelbo.networks.ClassToken"},
    **TRAINED,
}


def of_images(**changes: Any) -> Classifier:
    torch.manual_seed(0)
    return build_vision_transformer(**{"data": IMAGES, "patch": 2, **PARTS, **changes})


def of_texts(**changes: Any) -> Classifier:
    torch.manual_seed(0)
    return build_text_classifier(**{"data": TEXTS, **PARTS, **changes})


def images(n: int = 10) -> Batch:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.rand(n, *IMAGES.shape, generator=generator), torch.randint(3, (n,), generator=generator)
    return Batch(x, y, torch.arange(n))


def texts(n: int = 10) -> Batch:
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(1, 11, (n, 7), generator=generator)
    lengths = torch.randint(1, 8, (n, 1), generator=generator)
    return Batch(x * (torch.arange(7) < lengths), torch.randint(2, (n,), generator=generator), torch.arange(n))
