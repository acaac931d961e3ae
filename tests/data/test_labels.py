"""Few labels among many images: which are kept, and that no other can be seen."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from attelbo.data.labels import keep_labels
from attelbo.errors import ConfigError


def labels(data, split="train"):
    return data.materialize(torch.arange(data.n_rows(split)), split).y


def test_kept_labels_are_right_balanced_and_the_same_in_every_run(digits):
    few, true = labels(digits(n_labels=100)), labels(digits())
    kept = few != -1
    assert few[kept].bincount().tolist() == [10] * 10
    assert torch.equal(few[kept], true[kept])
    assert torch.equal(few, labels(digits(n_labels=100, seed=7, batch_size=5)))


def test_no_other_label_is_held_anywhere(digits):
    data = digits(n_labels=10, binarize="dynamic")
    data.setup()
    held = data._splits["train"].y
    assert held is not None
    assert int((held != -1).sum()) == 10
    for split in ("validation", "test"):  # where they count right answers
        assert torch.equal(labels(data, split), labels(digits(), split))


def test_labels_are_part_of_the_record(digits):
    few, all_ = digits(n_labels=10).checksums(), digits().checksums()
    assert few["train"] != all_["train"]
    assert few["validation"] == all_["validation"]
    assert digits(n_labels=10).spec.n_labels == 10


def test_a_module_that_shares_data_has_labels_of_its_own(digits):
    loaded = {}
    for n_labels in (10, 20):
        data = digits(n_labels=n_labels)
        data.share(loaded)
        assert int((labels(data) != -1).sum()) == n_labels


def test_what_does_not_come_out_even_goes_to_the_first_classes():
    y = torch.arange(3).repeat(4)
    kept = keep_labels(y, 5, 3, torch.Generator().manual_seed(0))
    assert kept[kept != -1].bincount().tolist() == [2, 2, 1]


def test_all_rows_of_a_class_may_keep_their_labels():
    y = torch.tensor([0, 1, 2, 0, 1, 0])
    kept = keep_labels(y, 3, 3, torch.Generator().manual_seed(0))
    assert kept[kept != -1].sort().values.tolist() == [0, 1, 2]
    assert kept[2] == 2  # the only one
    assert torch.equal(keep_labels(y[:3], 3, 3, torch.Generator()), y[:3])
    with pytest.raises(ValueError, match=r"^n_labels=4 takes 1 rows of class 3, of 0$"):
        keep_labels(y, 4, 4, torch.Generator())


def test_too_many_labels(digits):
    with pytest.raises(
        ConfigError, match=r"^data\.n_labels=1000 takes 100 rows of class 0, of \d+ training rows of digits"
    ):
        digits(n_labels=1000, train_size=500).setup()


def test_labels_of_data_without_classes(digits):
    source = {"_target_": "attelbo.data.sources.DSprites", "test_size": 10}
    with pytest.raises(ValueError, match=r"^n_labels must be null for dsprites, which has no classes, got 10"):
        digits(name="dsprites", source=source, n_labels=10, binarize="none")
    with pytest.raises(ValueError, match=r"^n_labels must be at least 1, got 0"):
        digits(n_labels=0)


class Largest(TorchDispatchMode):
    """Counts the elements of the largest tensor that is made."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.elements = max(self.elements, made.numel())
        return made


def test_memory_does_not_grow_with_the_number_of_classes():
    """Of ImageNet's 1,281,167 rows in 1,000 classes a table of rows and classes would take 10 GB."""
    y = torch.randint(100, (2000,), generator=torch.Generator().manual_seed(0))
    with Largest() as largest:
        kept = keep_labels(y, 150, 100, torch.Generator().manual_seed(0))
    assert largest.elements == 2000
    assert kept[kept != -1].bincount().tolist() == [2] * 50 + [1] * 50
