"""Which parameter gets which rate and decay, and that every optimizer moves every parameter."""

import pytest
import torch
from torch.nn import Parameter

from rankwise.config import Train
from rankwise.training.optimizers import groups, optimizer

NAMES = {
    "model.encoder.layer.0.query.lora_A.default.weight": (2, 4),
    "model.encoder.layer.0.query.lora_B.default.weight": (4, 2),
    "model.encoder.layer.0.query.lora_magnitude_vector.default.weight": (4,),
    "model.encoder.layer.0.query.base_layer.bias": (4,),
    "model.classifier.modules_to_save.default.weight": (3, 4),
    "model.classifier.modules_to_save.default.bias": (3,),
}


def parameters():
    made = torch.Generator().manual_seed(0)
    return [(name, Parameter(torch.randn(shape, generator=made))) for name, shape in NAMES.items()]


def rate_and_decay(train: Train) -> dict[str, tuple[float, float]]:
    named = parameters()
    names = {id(value): name for name, value in named}
    return {
        names[id(value)]: (group["lr"], group["weight_decay"])
        for group in groups(named, train)
        for value in group["params"]
    }


def test_lora_plus_and_the_head_have_rates_of_their_own():
    found = rate_and_decay(Train(learning_rate=1e-3, loraplus_ratio=16.0, head_learning_rate=5e-5, weight_decay=0.1))
    a, b, magnitude, bias, head, head_bias = (found[name] for name in NAMES)
    assert a == (1e-3, 0.1)
    assert b == (pytest.approx(1.6e-2), 0.1)
    assert magnitude == (1e-3, 0.0)
    assert bias == (1e-3, 0.0)
    assert head == (5e-5, 0.1)
    assert head_bias == (5e-5, 0.0)


def test_lora_on_the_head_has_the_heads_rate():
    for name in (
        "classifier.dense.lora_B",  # the fast engine's name
        "model.base_model.model.classifier.modules_to_save.default.dense.lora_B.default.weight",
    ):
        (group,) = groups([(name, Parameter(torch.zeros(4, 2)))], Train(loraplus_ratio=16.0, head_learning_rate=5e-5))
        assert (group["lr"], group["role"]) == (5e-5, "head")


def test_what_scales_is_not_decayed():
    for name in ("layer.ia3_l.default", "layer.lora_E.default"):
        (group,) = groups([(name, Parameter(torch.ones(4, 1)))], Train(weight_decay=0.1))
        assert group["weight_decay"] == 0.0


def test_muon_takes_matrices_alone():
    shapes = {"matrix": (4, 2), "ia3_l": (1, 8), "lora_E": (4, 1), "bias": (3,)}
    named = [(name, Parameter(torch.ones(shape))) for name, shape in shapes.items()]
    by_muon = [half for half in optimizer(named, Train(optimizer="muon"))._halves if isinstance(half, torch.optim.Muon)]
    assert [tuple(p.shape) for half in by_muon for group in half.param_groups for p in group["params"]] == [(4, 2)]


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd", "rmsprop", "adagrad", "muon"])
def test_every_optimizer_moves_every_parameter_and_resumes(name):
    train = Train(optimizer=name, learning_rate=0.01, momentum=0.9)

    def run(split_at: int | None) -> list[torch.Tensor]:
        named = parameters()
        optimizing = optimizer(named, train)
        for step in range(4):
            if step == split_at:
                state = optimizing.state_dict()
                optimizing = optimizer(named, train)
                optimizing.load_state_dict(state)
            sum((value**2).sum() for _, value in named).backward()
            optimizing.step()
            optimizing.zero_grad()
        return [value.detach() for _, value in named]

    whole = run(None)
    for before, after in zip(parameters(), whole, strict=True):
        assert not torch.equal(before[1], after), before[0]
    for one, other in zip(whole, run(2), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
