"""Distances in the features of VGG-19, against torchvision's network with the same weights."""

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import vgg
from torchvision.transforms.functional import normalize

from attelbo.cli import main
from attelbo.errors import DataError
from attelbo.experiments import untrained
from attelbo.latent import Perceptual
from attelbo.latent.extras.perceptual import BLOCKS
from attelbo.models import count_parameters

LAYERS = ("relu1_1", "relu2_1", "relu3_1")


def network(pretrained: Path) -> nn.Sequential:
    """torchvision's, as far as relu3_1, which is its module 11."""
    layers = vgg.make_layers(vgg.cfgs["E"][:7], batch_norm=False)
    weights = torch.load(pretrained, weights_only=True)
    layers.load_state_dict({name.removeprefix("features."): tensor for name, tensor in weights.items()})
    for layer in layers:
        if isinstance(layer, nn.ReLU):
            layer.inplace = False
    return layers


def images(n: int, channels: int, height: int = 8, width: int = 9) -> tuple[Tensor, Tensor]:
    return torch.rand(n, channels, height, width), torch.rand(n, channels, height, width)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_distance_is_that_of_torchvisions_features(pretrained: Path, channels: int) -> None:
    x, y = images(2, channels)
    expected = torch.zeros(2)
    states = [normalize(t.repeat(1, 3 // channels, 1, 1), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]) for t in (x, y)]
    for place, layer in enumerate(network(pretrained)):
        states = [layer(state) for state in states]
        if place in (1, 6, 11):
            _, c, h, w = states[0].shape
            expected += (states[0] - states[1]).square().sum((1, 2, 3)) / (2 * c * h * w)
    extra = Perceptual((channels, 8, 9), weight=3.0)
    torch.testing.assert_close(extra.distance(x, y), expected)
    torch.testing.assert_close(extra(x, y), 3 * expected)
    assert (extra(x, x) == 0).all()


def test_one_layer_is_a_term_of_the_sum() -> None:
    x, y = images(2, 1)
    alone = [Perceptual((1, 8, 9), layers=[layer]).distance(x, y) for layer in LAYERS]
    torch.testing.assert_close(torch.stack(alone).sum(0), Perceptual((1, 8, 9), layers=LAYERS[::-1]).distance(x, y))
    assert len(Perceptual((1, 8, 9), layers=["relu1_1"]).names) == 1  # the rest is not computed


def test_each_layer_has_the_weights_of_torchvisions_place(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.device("meta"):
        convolutions = [i for i, m in enumerate(vgg.make_layers(vgg.cfgs["E"], False)) if isinstance(m, nn.Conv2d)]
    published = {f"features.{i}.{kind}": torch.tensor(i) for i in range(40) for kind in ("weight", "bias")}
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_, **__: published)
    extra = Perceptual((3, 16, 16), layers=["relu5_4"])
    assert [int(extra.get_buffer(f"{layer}_weight")) for layer in BLOCKS] == convolutions
    assert [int(extra.get_buffer(f"{layer}_bias")) for layer in BLOCKS] == convolutions


def test_gradients_reach_the_reconstruction_and_no_weight() -> None:
    extra, (x, y) = Perceptual((1, 8, 8)).double(), images(1, 1, 8, 8)
    assert torch.autograd.gradcheck(lambda y: extra(x.double(), y), (y.double().requires_grad_(),), fast_mode=True)
    assert not list(extra.parameters())
    assert not extra.state_dict()


def test_under_autocast_it_is_the_distance() -> None:
    x, y = images(4, 1)
    extra = Perceptual((1, 8, 9))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = extra(x, y)
        assert (extra(x, x) == 0).all()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, extra(x, y), rtol=0.02, atol=0)


def test_it_is_compiled_as_one_graph() -> None:
    extra, (x, y) = Perceptual((1, 8, 9)), images(2, 1)
    torch.testing.assert_close(torch.compile(extra, backend="eager", fullgraph=True)(x, y), extra(x, y))


def test_the_model_counts_and_saves_its_own_parameters_only() -> None:
    small = ("~experiment", "model/encoder=mlp", "model/decoder=mlp", "model.encoder.hidden=[4]", "model.latent_dim=2")
    model, plain = (untrained(f"model={name}", *small)[0] for name in ("dfc_vae", "vae"))
    assert isinstance(model.extra, Perceptual)
    assert count_parameters(model) == count_parameters(plain)
    assert model.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("content", [None, b"", b"half a file", "no weights"])
def test_weights_that_cannot_be_had_are_a_line(
    content: bytes | str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    file = tmp_path / "hub" / "checkpoints" / "vgg19-dcbb9e9d.pth"
    file.parent.mkdir(parents=True)
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content:
        torch.save({content: torch.zeros(1)}, file)
    outputs = tmp_path / "outputs"
    assert main(["train", "model=dfc_vae", f"paths.output_dir={outputs}"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert line.startswith(f"error: model.extra: the weights of VGG-19 cannot be read from {file} (")
    assert ("move it away" if content is not None else "vgg19-dcbb9e9d.pth there, or set TORCH_HOME") in line
    assert not outputs.exists()
    with pytest.raises(DataError, match=r"^model\.extra: the weights of VGG-19 .* model/extra=ms_ssim needs none$"):
        Perceptual((1, 8, 8))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"data_shape": (2, 8, 8)}, r"^data_shape must be \(1 or 3 channels, .*, got \(2, 8, 8\)"),
        ({"data_shape": (8,)}, r"^data_shape must be .*, got \(8,\)"),
        ({"data_shape": (1, 3, 8)}, r"^data_shape must be .* at least 4 pixels each way for relu3_1, got \(1, 3, 8\)"),
        ({"layers": []}, r"^layers must be some of relu1_1, .*, got none"),
        ({"layers": ["relu1_1", "conv1_1"]}, r"^layers must be some of relu1_1, .*, got relu1_1, conv1_1"),
        ({"weight": -1.0}, r"^weight must be finite and not negative, got -1"),
    ],
)
def test_bad_arguments_are_refused(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Perceptual(**{"data_shape": (1, 8, 8), **given})
