"""What models make to be looked at: what is shown is what the model says."""

import pytest
import torch
from tiny import TinyData, TinyModel, TinyStepper
from torch import nn

from attelbo.data.batch import Batch
from attelbo.models import Classifier
from attelbo.training import callbacks
from attelbo.training.callbacks import Confusion
from attelbo.training.callbacks import confusion as confusion_module

OPTIMIZER = {"_target_": "torch.optim.Adam", "lr": 1e-3}
SCHEDULER = {"_target_": "attelbo.models.schedulers.Constant"}


class Labelled(TinyData):
    """24 rows whose label is their number modulo 10, and their pixels too."""

    def materialize(self, index, split):
        x = (index % 10).float().view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
        return Batch(x, index % 10, index)


class NextClass(nn.Module):
    """Says class 9 of class 9 and of every other the next one."""

    def forward(self, x):
        return nn.functional.one_hot((x[:, 0, 0, 0].long() + 1).clamp(max=9), 10).float()


def test_a_confusion_has_a_row_for_each_class_and_a_column_for_each_answer(monkeypatch):
    shown = {}

    def keep(weights, queries, keys, title, **options):
        shown.update(weights=weights, queries=queries, keys=keys, title=title, **options)

    monkeypatch.setattr(confusion_module, "attention_map", keep)
    model = Classifier(NextClass(), 10, 10, OPTIMIZER, SCHEDULER)
    model.head = nn.Identity()
    data = Labelled()
    assert set(Confusion(n_rows=24).draw(model, data)) == {"confusion"}
    expected = torch.zeros(10, 10)
    expected[range(10), [1, 2, 3, 4, 5, 6, 7, 8, 9, 9]] = 1.0
    assert torch.equal(shown["weights"], expected)
    assert shown["axes"] == ("class", "answer")
    assert "24 validation rows of tiny" in shown["title"]
    monkeypatch.undo()
    assert Confusion(n_rows=24).draw(model, data)["confusion"].ndim == 3


def exhibits():
    found = [getattr(callbacks, name) for name in callbacks.__all__]
    return [kind for kind in found if issubclass(kind, callbacks.Exhibit) and kind is not callbacks.Exhibit]


@pytest.mark.parametrize("kind", exhibits(), ids=lambda kind: kind.__name__)
def test_exhibits_make_nothing_of_models_of_another_kind(kind):
    data, made = TinyData(), kind().draw(TinyModel(TinyStepper(1)), TinyData())
    assert bool(made) == (kind is callbacks.Pictures)
    assert kind().draw(nn.Linear(1, 1), data) == {}


@pytest.mark.parametrize("kind", exhibits(), ids=lambda kind: kind.__name__)
def test_exhibits_refuse_negative_epochs(kind):
    with pytest.raises(ValueError, match="every_n_epochs must be at least 0"):
        kind(every_n_epochs=-1)
