"""Muon against its formula by singular values, against torch's own, and which weights it takes for matrices."""

import pytest
import torch
from torch import Tensor, nn

from attelbo.experiments import untrained
from attelbo.models.muon import POLYNOMIAL, STEPS, Muon, hidden_matrices, orthogonalized

SHAPES = [(6, 4), (4, 6), (6, 4), (5, 5), (3,)]


def parameters(dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(shape, dtype=dtype)) for shape in SHAPES]


def gradients(step: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    torch.manual_seed(100 + step)
    return [torch.randn(shape, dtype=dtype) for shape in SHAPES]


def trained(optimizer: torch.optim.Optimizer, moved: list[nn.Parameter], steps: int = 6) -> list[Tensor]:
    for step in range(steps):
        for parameter, gradient in zip(moved, gradients(step, moved[0].dtype), strict=False):
            parameter.grad = gradient
        optimizer.step()
    return [parameter.detach() for parameter in moved]


def by_singular_values(matrix: Tensor) -> Tensor:
    """The polynomial of each singular value, five times."""
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    s = s / s.square().sum().sqrt()
    for _ in range(STEPS):
        s = torch.stack([factor * s ** (2 * power + 1) for power, factor in enumerate(POLYNOMIAL)]).sum(0)
    return u @ torch.diag(s) @ v


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5), (1, 7)])
def test_singular_values_come_near_one_and_their_vectors_stay(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(3, *shape, dtype=torch.float64) * torch.tensor([1e-3, 1.0, 50.0])[:, None, None]
    found = orthogonalized(matrices)
    for own, matrix in zip(found, matrices, strict=True):
        torch.testing.assert_close(own, by_singular_values(matrix))
    values = torch.linalg.svdvals(found)
    assert ((values > 0.6) & (values < 1.3)).all()


def test_a_matrix_without_a_gradient_so_far_stays() -> None:
    assert (orthogonalized(torch.zeros(1, 3, 2)) == 0).all()


def test_steps_are_their_formula() -> None:
    ours, mu, lr, decay = parameters(), 0.9, 0.03, 0.2
    expected, averages = [p.detach().clone() for p in ours[:4]], [torch.zeros(shape) for shape in SHAPES[:4]]
    for step in range(6):
        for i, gradient in enumerate(gradients(step)[:4]):
            averages[i] = mu * averages[i] + (1 - mu) * gradient
            direction = by_singular_values(mu * averages[i] + (1 - mu) * gradient)
            expected[i] = expected[i] * (1 - lr * decay) - lr * 0.2 * max(SHAPES[i]) ** 0.5 * direction
    found = trained(Muon(ours, ours[:4], lr=lr, momentum=mu, weight_decay=decay), ours)
    for own, other in zip(found, expected, strict=False):
        torch.testing.assert_close(own, other)


def test_matrices_are_those_of_torchs_muon_and_others_those_of_its_adamw_to_the_bit() -> None:
    ours, theirs, start = (parameters(torch.float32) for _ in range(3))
    chosen = [0, 1, 3]
    found = trained(Muon(ours, [ours[i] for i in chosen], lr=0.02, weight_decay=0.1), ours)
    muon = torch.optim.Muon([theirs[i] for i in chosen], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    groups = [{"params": [theirs[2]]}, {"params": [theirs[4]], "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=0.02, betas=(0.9, 0.95), weight_decay=0.1)
    trained(muon, theirs)
    expected = trained(adamw, theirs)
    assert torch.equal(found[2], expected[2])
    assert torch.equal(found[4], expected[4])
    for i in chosen:  # torch's rounds to bfloat16
        assert (found[i] - expected[i]).norm() < 0.02 * (expected[i] - start[i]).norm()


def test_it_goes_on_from_its_state_bit_for_bit() -> None:
    whole, ours = parameters(torch.float32), parameters(torch.float32)
    expected = trained(Muon(whole, whole[:4]), whole)
    first = Muon(ours, ours[:4])
    trained(first, ours, steps=3)
    rest = Muon(ours, ours[:4])
    rest.load_state_dict(first.state_dict())
    for step in range(3, 6):
        for parameter, gradient in zip(ours, gradients(step, torch.float32), strict=True):
            parameter.grad = gradient
        rest.step()
    assert all(torch.equal(a, b.detach()) for a, b in zip(expected, ours, strict=True))


def test_a_parameter_that_takes_no_part_stays() -> None:
    ours = parameters()
    ours[0].grad, ours[4].grad = torch.ones_like(ours[0]), None
    before = [parameter.detach().clone() for parameter in ours]
    Muon(ours, ours[:4]).step()
    assert [torch.equal(a, b) for a, b in zip(before, ours, strict=True)] == [False, True, True, True, True]


def test_as_torchs_own_it_takes_an_iterator_and_a_closure() -> None:
    ours, expected = parameters(), parameters()
    optimizer = Muon(iter(ours), ours[:4])

    def loss() -> Tensor:
        value = torch.stack([parameter.square().sum() for parameter in ours]).sum()
        value.backward()
        return value

    value = torch.stack([parameter.square().sum() for parameter in expected]).sum()
    assert optimizer.step(loss) == value
    for own, other in zip(ours, expected, strict=True):
        other.grad = 2 * other.detach()
        torch.testing.assert_close(own.grad, other.grad)
    Muon(expected, expected[:4]).step()
    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))


GPT = ("model=gpt", "data=sort", "optimizer=muon", "model.dim=8", "model.attention.heads=2", "model.network.layers=1")


@pytest.mark.parametrize("tied", [True, False])
def test_of_a_language_model_what_is_between_embedding_and_head(tied: bool) -> None:
    model, _ = untrained(*GPT, f"model.tie_weights={tied}")
    names = {parameter: name for name, parameter in model.named_parameters()}
    (optimizer,) = model.built_optimizers()
    orthogonal, tables, vectors = optimizer.param_groups
    block = "network.blocks.0"
    assert {names[p] for p in orthogonal["params"]} == {
        *(f"{block}.attention.{name}.weight" for name in ("qkv", "output")),
        *(f"{block}.feed_forward.{name}.weight" for name in ("first", "second")),
    }
    assert {names[p] for p in tables["params"]} >= {"embedding.vectors.weight", *([] if tied else ["head.weight"])}
    assert all(parameter.ndim == 1 for parameter in vectors["params"])
    assert (tables["weight_decay"], vectors["weight_decay"]) == (0.1, 0.0)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(names)


def test_projections_of_a_latent_vector_are_matrices_as_others_are() -> None:
    model, _ = untrained(*GPT, "model/attention=latent")
    chosen = hidden_matrices(model)
    names = {name.split(".")[-2] for name, p in model.named_parameters() if any(p is own for own in chosen)}
    assert names == {"query", "down", "up_key", "up_value", "output", "first", "second"}


def test_of_other_models_the_layer_that_speaks_of_the_data_is_none() -> None:
    model, _ = untrained("experiment=digits/vit", "model.dim=8", "model.attention.heads=2")
    names = {parameter: name for name, parameter in model.named_parameters()}
    assert {names[parameter].split(".")[0] for parameter in hidden_matrices(model)} == {"body"}
    vae, _ = untrained("model=vae", "model/encoder=mlp", "model/decoder=mlp", "data=digits", "data.binarize=dynamic")
    chosen = [name for name, p in vae.named_parameters() if any(p is own for own in hidden_matrices(vae))]
    assert chosen
    assert all("output" not in name and name.endswith("weight") for name in chosen)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "lr must"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        ({"betas": (0.9, 1.0)}, r"betas\[1\] must be in \[0, 1\), got 1.0"),
        ({"weight_decay": -0.1}, "weight_decay must"),
        ({"matrices": [1]}, "matrices cannot be set in a configuration"),
    ],
)
def test_bad_arguments(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Muon(parameters(), **options)
