"""What models make to be looked at: what is shown is what the model says."""

import inspect

import pytest
import torch
from tiny import TinyData, TinyModel, TinyStepper
from torch import nn

from attelbo.data.batch import Batch
from attelbo.data.tasks import SetDataModule
from attelbo.models import Classifier, Mixture, build_set_model
from attelbo.training import callbacks
from attelbo.training.callbacks import Clusters, Confusion
from attelbo.training.callbacks import confusion as confusion_module
from attelbo.training.callbacks.clusters import draw_mixtures
from attelbo.training.media import label_colors

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
    assert shown["queries"] == shown["keys"] == data.class_names
    monkeypatch.undo()
    assert Confusion(n_rows=24).draw(model, data)["confusion"].ndim == 3


def exhibits():
    found = filter(inspect.isclass, (getattr(callbacks, name) for name in callbacks.__all__))
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


def test_clusters_are_painted_in_the_color_of_their_component():
    generator = torch.Generator().manual_seed(0)
    means = torch.tensor([[[-3.0, 0.0], [3.0, 0.0]]])
    x = (means + 0.1 * torch.randn(200, 2, 2, generator=generator)).transpose(0, 1).reshape(1, 400, 2)
    mixture = Mixture(torch.tensor([[0.5, 0.5]]).log(), means, torch.full((1, 2, 2), 0.1))
    there = torch.ones(1, 400, dtype=torch.bool)
    both = draw_mixtures(x, there, mixture)
    one = draw_mixtures(x, there & (torch.arange(400) < 200), mixture)
    first, second = (label_colors(2)[k, :3] * 255 for k in range(2))

    def area(picture, color):
        """Pixels in this color, or nearly: points on top of each other cover the white behind them."""
        return int((abs(picture - color).max(-1) < 40).sum())

    assert area(both, first) > 50
    assert area(both, second) > 50
    assert area(one, first) > 50
    assert area(one, second) == 0


def test_clusters_are_of_models_that_find_mixtures_in_the_plane():
    data = SetDataModule(
        "points",
        {"_target_": "attelbo.data.tasks.Mixtures", "smallest_set": 5, "largest_set": 9},
        **{"root": "", "seed": 0, "batch_size": 1, "eval_batch_size": 1},
        **{"train_size": 1, "validation_size": 3, "test_size": 1},
    )
    network = {"_target_": "attelbo.networks.DeepSets", "encoder": [4], "decoder": []}
    heads = ({"_target_": "attelbo.models.Clustering"}, {"_target_": "attelbo.models.Regression"})
    finds, counts = (build_set_model(data.spec, network, head, OPTIMIZER, SCHEDULER) for head in heads)
    assert set(Clusters().draw(finds, data)) == {"clusters"}
    assert Clusters().draw(counts, data) == {}
    with pytest.raises(ValueError, match="n_sets must be at least 1, got 0"):
        Clusters(n_sets=0)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"n": 0}, "n must be at least 1, got 0"),
        ({"n_paths": 0}, "n_paths must be at least 1, got 0"),
        ({"steps": 1}, "steps must be at least 2, got 1"),
        ({"temperature": -1.0}, r"temperature must be finite and not negative, got -1\.0"),
        ({"every_n_epochs": -1}, "every_n_epochs must be at least 0"),
    ],
)
def test_sentences_out_of_range_are_refused(options, told):
    with pytest.raises(ValueError, match=rf"^{told}"):
        callbacks.Sentences(**options)


def test_other_models_have_no_sentences():
    assert callbacks.Sentences().draw(TinyModel(TinyStepper(16)), TinyData()) == {}
