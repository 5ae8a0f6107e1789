"""Each schedule's shape, its warm-up, and that a resumed one goes on where it was."""

import pytest
import torch

from rankwise.config import Train
from rankwise.errors import UserError
from rankwise.training.schedules import Schedule, warmup_steps

SHAPES = ["constant", "linear", "cosine", "cosine_restarts", "step", "polynomial", "plateau"]


def rates(train: Train, steps: int, losses: dict[int, float] | None = None) -> list[float]:
    """The learning rate used by each step."""
    optimizer, schedule = parts(train, steps)
    used = []
    for step in range(steps):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
        if losses and step + 1 in losses:
            schedule.observe(losses[step + 1])
    return used


def parts(train: Train, steps: int):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=train.learning_rate)
    return optimizer, Schedule(optimizer, train, steps)


@pytest.mark.parametrize("shape", SHAPES)
def test_warm_up_rises_linearly_to_the_peak(shape):
    used = rates(Train(schedule=shape, learning_rate=1.0, warmup_steps=4), 20)
    assert used[:5] == pytest.approx([0, 0.25, 0.5, 0.75, 1.0])


def test_linear_and_cosine_fall_to_zero():
    linear = rates(Train(schedule="linear", learning_rate=1.0), 10)
    assert linear == pytest.approx([1 - step / 10 for step in range(10)])
    cosine = rates(Train(schedule="cosine", learning_rate=1.0), 10)
    assert cosine[5] == pytest.approx(0.5)


def test_restarts_come_back_to_the_peak_and_step_drops():
    restarts = rates(Train(schedule="cosine_restarts", learning_rate=1.0, cycles=2), 20)
    assert restarts[10] == pytest.approx(1.0)
    assert restarts[9] < 0.1
    drops = rates(Train(schedule="step", learning_rate=1.0, cycles=2, decay=0.1), 12)
    assert drops == pytest.approx([1.0] * 4 + [0.1] * 4 + [0.01] * 4)


def test_polynomial_is_a_power_of_the_steps_left():
    used = rates(Train(schedule="polynomial", learning_rate=1.0, power=3.0), 10)
    assert used[5] == pytest.approx(0.125)


def test_a_plateau_halves_the_rate():
    losses = {2: 1.0, 4: 1.0, 6: 1.0, 8: 1.0}
    used = rates(Train(schedule="plateau", learning_rate=1.0, decay=0.5, plateau_patience=1), 10, losses)
    assert used == pytest.approx([1.0] * 6 + [0.5] * 4)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_resumed_schedule_goes_on_where_it_was(shape):
    train = Train(schedule=shape, learning_rate=1.0, warmup_steps=3, plateau_patience=0)
    losses = dict.fromkeys(range(1, 21), 1.0)
    whole = rates(train, 20, losses)
    optimizer, schedule = parts(train, 20)
    for step in range(9):
        optimizer.step()
        schedule.step()
        schedule.observe(losses[step + 1])
    saved, weights = schedule.state_dict(), optimizer.state_dict()
    optimizer, schedule = parts(train, 20)
    optimizer.load_state_dict(weights)
    schedule.load_state_dict(saved)
    resumed = []
    for step in range(9, 20):
        resumed.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
        schedule.observe(losses[step + 1])
    assert resumed == pytest.approx(whole[9:])


def test_a_ratio_rounds_up_and_a_warm_up_longer_than_the_run_is_refused():
    assert warmup_steps(Train(warmup_ratio=0.1), 1001) == 101
    assert warmup_steps(Train(warmup_ratio=0.1), 1) == 0, "a step is left that trains"
    with pytest.raises(UserError, match="the whole run has 10 steps"):
        warmup_steps(Train(warmup_steps=10), 10)


@pytest.mark.parametrize("shape", ["linear", "cosine", "cosine_restarts", "constant"])
def test_the_rates_are_those_of_transformers(shape):
    from transformers import get_scheduler

    name = {"cosine_restarts": "cosine_with_restarts", "constant": "constant_with_warmup"}.get(shape, shape)
    options = {"num_cycles": 3} if shape == "cosine_restarts" else {}
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    schedule = get_scheduler(name, optimizer, 5, 37, scheduler_specific_kwargs=options)
    theirs = []
    for _ in range(37):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates(Train(schedule=shape, learning_rate=0.3, warmup_steps=5, cycles=3), 37) == theirs
