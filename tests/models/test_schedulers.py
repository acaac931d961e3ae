"""Learning-rate schedules against torch's own schedulers, and IWAE's against the paper's boundaries."""

import math

import pytest
import torch

from attelbo.models.schedulers import Constant, Cosine, GrowingStages, InverseSquareRoot, StepDecay, WarmupStableDecay

TOTAL = 200


def rates_of_torch(make):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(optimizer)
    rates = []
    for _ in range(TOTAL + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def factors(schedule, total=TOTAL):
    return [schedule(step, total) for step in range(total + 1)]


def test_constant():
    assert set(factors(Constant())) == {1.0}


def test_cosine_is_that_of_torch():
    expected = rates_of_torch(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=TOTAL, eta_min=0.1))
    assert factors(Cosine(final=0.1)) == pytest.approx(expected, abs=1e-12)


def test_cosine_warms_up_in_equal_steps_to_one():
    values = factors(Cosine(warmup=0.1))
    assert values[:20] == pytest.approx([i / 20 for i in range(1, 21)])
    assert values[20] == 1.0
    assert values[-1] == pytest.approx(0.0, abs=1e-12)
    assert Cosine(warmup=0.1, final=0.2)(10 * TOTAL, TOTAL) == pytest.approx(0.2)  # after the end it holds


def test_warmup_stable_decay_is_three_of_torch_in_a_row():
    def of_torch(optimizer):
        schedulers = torch.optim.lr_scheduler
        rising = schedulers.LinearLR(optimizer, start_factor=1 / 20, total_iters=19)
        plateau = schedulers.ConstantLR(optimizer, factor=1.0)
        falling = schedulers.LinearLR(optimizer, start_factor=1.0, end_factor=0.1, total_iters=40)
        return schedulers.SequentialLR(optimizer, [rising, plateau, falling], milestones=[20, TOTAL - 40])

    values = factors(WarmupStableDecay(warmup=0.1, decay=0.2, final=0.1))
    assert values == pytest.approx(rates_of_torch(of_torch), abs=1e-12)
    assert values == factors(WarmupStableDecay(warmup=20, decay=0.2, final=0.1))


def test_without_a_plateau_it_decays_linearly_from_the_warm_up_on():
    values = factors(WarmupStableDecay(warmup=50, decay=1.0))
    assert values[50:] == pytest.approx([1 - i / 150 for i in range(151)])
    assert WarmupStableDecay(warmup=50, decay=1.0)(10 * TOTAL, TOTAL) == 0.0
    assert max(factors(WarmupStableDecay(warmup=TOTAL + 9), TOTAL)) < 1.0  # a warm-up that is never over


def test_the_inverse_square_root_is_that_of_the_paper():
    dim, warmup = 512, 40
    paper = [dim**-0.5 * min(n**-0.5, n * warmup**-1.5) for n in range(1, TOTAL + 2)]
    values = factors(InverseSquareRoot(warmup))
    assert values == pytest.approx([rate / max(paper) for rate in paper], rel=1e-12)
    assert max(values) == values[warmup - 1] == 1.0


def test_step_decay_is_that_of_torch():
    expected = rates_of_torch(lambda o: torch.optim.lr_scheduler.MultiStepLR(o, milestones=[100, 150], gamma=0.3))
    assert factors(StepDecay(milestones=[0.5, 0.75], factor=0.3)) == pytest.approx(expected, rel=1e-12)


def test_growing_stages_are_those_of_the_paper():
    schedule, epochs = GrowingStages(), 3280
    expected = [10 ** (-i / 7) for i in range(8) for _ in range(3**i)]
    assert len(expected) == epochs
    assert [schedule(epoch, epochs) for epoch in range(epochs)] == pytest.approx(expected, rel=1e-12)
    assert schedule(epochs, epochs) == pytest.approx(0.1)


def test_growing_stages_keep_their_proportions():
    values = factors(GrowingStages(stages=3, growth=2), total=700)
    lengths = [sum(math.isclose(v, 10 ** (-i / 2)) for v in values[:-1]) for i in range(3)]
    assert lengths == [100, 200, 400]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cosine(warmup=-0.1), "warmup must be"),
        (lambda: Cosine(warmup=float("nan")), "warmup must be"),
        (lambda: Cosine(warmup=1.5), r"warmup must be a fraction of the training .* or a number of steps, got 1\.5"),
        (lambda: Cosine(final=-0.1), "final must be"),
        (lambda: WarmupStableDecay(warmup=1.5), "warmup must be"),
        (lambda: WarmupStableDecay(decay=0.0), r"decay must be a fraction of the training in \(0, 1\], got 0\.0"),
        (lambda: WarmupStableDecay(decay=1.1), "decay must be"),
        (lambda: StepDecay(milestones=[0.7, 0.5]), "milestones must be"),
        (lambda: StepDecay(milestones=[0.0]), "milestones must be"),
        (lambda: StepDecay(factor=0.0), "factor must be"),
        (lambda: GrowingStages(stages=1), "stages must be"),
        (lambda: GrowingStages(growth=0), "growth must be"),
    ],
)
def test_out_of_range(make, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()


def test_a_warm_up_in_steps_is_as_long_in_every_training():
    for total in (200, 1000):
        assert factors(Cosine(warmup=20), total)[:21] == pytest.approx([*(i / 20 for i in range(1, 21)), 1.0])
    with pytest.raises(
        ValueError, match=r"warmup must be a fraction of the training .* or a number of steps, got 1\.5"
    ):
        Cosine(warmup=1.5)
