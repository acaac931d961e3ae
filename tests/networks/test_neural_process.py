"""Networks of neural processes: what their first weights and scores are scaled by."""

import torch

from attelbo.attention.scores import ScaledDot
from attelbo.networks import AttentivePath, PointDecoder


def test_a_place_of_two_numbers_counts_as_much_as_hundreds_of_features():
    torch.manual_seed(0)
    decoder = PointDecoder(2, [64, 0, 128], 32, dim=512, out_features=2)
    nothing = [torch.zeros(1, 1, 64), torch.zeros(1, 1, 0), torch.zeros(1, 1, 128)]
    seen = {}
    decoder.rest.register_forward_pre_hook(lambda _module, inputs: seen.update(hidden=inputs[0]))
    for i, width in enumerate((2, 64, 128, 32)):  # each input by itself, the others zero
        value = torch.randn(1000, 1, width)
        place = value if i == 0 else torch.zeros(1000, 1, 2)
        features = [value if i == 1 else nothing[0], nothing[1], value if i == 2 else nothing[2]]
        z = value.mT.reshape(1, 1000, 32) if i == 3 else torch.zeros(1, 1, 32)
        decoder(place, features, z)
        # A ReLU lets half of the second moment through; the four together are as for other layers (He et al. 2015).
        assert abs(seen["hidden"].square().mean().item() - 1 / 4) < 0.03


def test_scores_are_scaled_by_the_width_of_one_head():
    path = AttentivePath(1, 2, 32, heads=4)
    scales = [module.score.scale for module in path.modules() if isinstance(getattr(module, "score", None), ScaledDot)]
    assert scales == [8**-0.5] * 2
