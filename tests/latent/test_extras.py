"""Extra terms: structural similarity against torchmetrics, gradients, and that bounds know nothing of them."""

from dataclasses import replace
from typing import Any

import latent_contract as contract
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.image import structural_similarity_index_measure

from attelbo.data.batch import Batch, DataSpec
from attelbo.errors import ConfigError
from attelbo.latent import MSSSIM
from attelbo.latent.extras.ms_ssim import SCALES, STD, WINDOW
from attelbo.models import build_vae


def pair(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth images and noisy ones like them."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(shape, generator=generator, dtype=torch.float64)
    x = torch.nn.functional.avg_pool2d(x, 5, stride=1, padding=2)
    x = (x - x.min()) / (x.max() - x.min())
    return x, (x + 0.1 * torch.randn(shape, generator=generator, dtype=torch.float64)).clamp(0, 1)


def reference(x: Tensor, y: Tensor, exponents: list[float], width: int) -> Tensor:
    """MS-SSIM of torchmetrics' maps, of which only windows inside the image are taken."""
    std, inside, found = STD * width / WINDOW, slice(width // 2, -(width // 2)), torch.ones(len(x), dtype=x.dtype)
    for scale, exponent in enumerate(exponents):
        last = scale == len(exponents) - 1
        options = {"return_full_image": True} if last else {"return_contrast_sensitivity": True}
        _, second = structural_similarity_index_measure(y, x, sigma=std, data_range=1.0, reduction="none", **options)
        found = found * (second[..., inside, inside].flatten(1).mean(1) if last else second) ** exponent
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return found


@pytest.mark.parametrize("size", [(176, 190), (96, 88), (50, 44), (28, 28)])
def test_ms_ssim_is_that_of_torchmetrics(size: tuple[int, int]) -> None:
    x, y = pair(3, 2, *size)
    measure = MSSSIM((2, *size)).double()
    exponents = measure.exponents.tolist()
    assert len(exponents) == sum(min(size) // 2**scale >= WINDOW for scale in range(len(SCALES)))
    torch.testing.assert_close(measure.similarity(x, y), reference(x, y, exponents, WINDOW), rtol=1e-5, atol=0)


@pytest.mark.parametrize("size", [(8, 8), (9, 12), (5, 4), (3, 7)])
def test_small_images_have_one_scale_and_a_smaller_window(size: tuple[int, int]) -> None:
    x, y = pair(3, 1, *size)
    measure = MSSSIM((1, *size)).double()
    assert measure.exponents.tolist() == [1.0]
    width = size[0] - len(measure.get_buffer("rows0")) + 1
    assert width % 2 == 1
    assert min(size) - 1 <= width <= min(size)
    torch.testing.assert_close(measure.similarity(x, y), reference(x, y, [1.0], width), rtol=1e-4, atol=0)


def test_known_answers() -> None:
    x, y = pair(3, 1, 30, 30)
    measure = MSSSIM((1, 30, 30), weight=3.0).double()
    torch.testing.assert_close(measure(x, x), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(measure(x, y), 3 * measure.distance(x, y))
    torch.testing.assert_close(measure(x, y), measure(y, x))
    assert (measure.distance(x, 1 - x) > measure.distance(x, y)).all()


def test_gradients() -> None:
    x, y = pair(2, 1, 24, 24)
    measure = MSSSIM((1, 24, 24)).double()
    assert torch.autograd.gradcheck(lambda y: measure(x, y), (y.requires_grad_(),), fast_mode=True)
    opposite = (1 - x).requires_grad_()  # similarity below zero: cut off, and no NaN
    (gradient,) = torch.autograd.grad(measure(x, opposite).sum(), opposite)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data_shape": (1, 2, 8)}, r"^data_shape must be .*, got \(1, 2, 8\)"),
        ({"data_shape": (5,)}, r"^data_shape must be"),
        ({"data_shape": (1, 8, 8), "weight": -1.0}, r"^weight must be finite and not negative, got -1.0"),
    ],
)
def test_what_makes_no_sense(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MSSSIM(**arguments)


def parts(**changes: str) -> dict[str, Any]:
    choices = {"posterior": "diagonal_normal", "prior": "standard_normal", "likelihood": "bernoulli"}
    return {
        "encoder": {"_target_": "attelbo.networks.MLPEncoder", "hidden": [6]},
        "decoder": {"_target_": "attelbo.networks.MLPDecoder", "hidden": [6]},
        "objective": {**contract.spec("objective", "elbo"), "n_samples": 2},
        "optimizer": {"_target_": "torch.optim.Adam"},
        "scheduler": {"_target_": "attelbo.models.schedulers.Constant"},
        **{name: contract.spec(name, choice) for name, choice in (choices | changes).items()},
    }


def test_a_model_adds_it_to_the_loss_and_to_nothing_else() -> None:
    data = DataSpec("bits", (1, 8, 8), "binary", None)
    batch = Batch(torch.rand(4, 1, 8, 8).round(), None, torch.arange(4))
    terms, results = [], []
    for extra in (None, contract.spec("extra", "ms_ssim")):
        torch.manual_seed(0)
        model = build_vae(data=data, latent_dim=2, extra=extra, **parts())
        torch.manual_seed(1)
        terms.append(model.losses(batch))
        torch.manual_seed(1)
        with torch.no_grad():
            model.evaluation_step(batch)
        results.append(model.evaluation_results())
    plain, extended = terms
    assert set(extended) - set(plain) == {"extra"}
    for name in ("elbo", "reconstruction", "kl"):
        assert torch.equal(plain[name], extended[name])
    torch.testing.assert_close(extended["loss"], plain["loss"] + extended["extra"])
    assert extended["extra"] > 0
    torch.testing.assert_close(results[1]["extra"], extended["extra"])
    torch.testing.assert_close(results[1]["loss"], extended["loss"].detach())
    torch.testing.assert_close(results[1]["elbo"], results[0]["elbo"])


def test_terms_that_would_be_wrong_are_refused() -> None:
    extra: dict[str, Any] = {"latent_dim": 2, "extra": contract.spec("extra", "ms_ssim")}
    bits, maps = (DataSpec(kind, (1, 8, 8), kind, None) for kind in ("binary", "real"))
    # Its weights of the samples would be those of the extra term's gradient too, which is a plain mean over samples.
    with pytest.raises(ConfigError, match=r"^model/extra: DReG weights all gradients .* those of MSSSIM too"):
        build_vae(bits, **extra, **parts(objective="dreg"))
    with pytest.raises(ConfigError, match=r"^model/extra: MSSSIM compares images with values from 0 to 1, .* none$"):
        build_vae(replace(maps, log_volume=3.0), **extra, **parts(likelihood="normal"))
    assert build_vae(maps, **extra, **parts(likelihood="normal")).extra is not None
