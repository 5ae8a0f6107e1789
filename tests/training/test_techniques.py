"""Every option reaches the maths: what it changes is measured, not that it is accepted."""

import numpy as np
import pytest
import torch

from rankwise import config as configuration
from rankwise import planning
from rankwise.methods.adalora import Allocation
from rankwise.models import assemble, tokenizer_of
from rankwise.models.classifier import ReferenceClassifier
from rankwise.training.objective import objective
from rankwise.training.optimizers import optimizer

LABELS = ["sport", "business", "science"]
TEXTS = ["the striker scored a goal", "shares of the bank fell", "a new planet in orbit", "the team and the coach"]
TARGETS = torch.tensor([0, 1, 2, 0])


def built(tiny_model, adapter=None, **sections):
    """An assembled model and its configuration; budget lifted, so that every method fits."""
    tree = {
        "budget": {"max_trainable": None},
        "model": {"name": str(tiny_model)},
        "adapter": {"scope": ["query", "value"], "rank": 4, "dropout": 0.0, **(adapter or {})},
        "engine": "reference",
        **sections,
    }
    config = configuration.from_dict(tree)
    return model_of(config, tiny_model), config


def model_of(config, tiny_model, steps=20):
    tokenizer = tokenizer_of(config.model)
    batch = dict(tokenizer(TEXTS * 8, padding=True, return_tensors="pt"))
    batch.pop("token_type_ids", None)
    return assemble.build(config, 3, LABELS, total_steps=steps, batches=lambda: [batch])


def descend(model, config, tiny_model, steps=8, after_backward=lambda step: None):
    """Full-batch steps on four texts without dropout; the losses before each step."""
    tokenizer = tokenizer_of(config.model)
    classifier = ReferenceClassifier(model, pad_token_id=0, precision="fp32").eval()
    batch = classifier.collate([np.array(tokenizer(text)["input_ids"]) for text in TEXTS])
    goal = objective(config.train, TARGETS.numpy(), 3, multi_label=False)
    named = [(name, value) for name, value in classifier.named_parameters() if value.requires_grad]
    optimizing = optimizer(named, config.train)
    losses = []
    for step in range(1, steps + 1):
        loss = goal.total(classifier(batch), TARGETS) / goal.normaliser(TARGETS.numpy())
        loss.backward()
        optimizing.step()
        after_backward(step)
        optimizing.zero_grad()
        losses.append(loss.item())
    return losses


def snapshot(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def moved(before, model):
    """Names of the parameters that changed, and by how much at most."""
    change = {name: float((value.detach() - before[name]).abs().max()) for name, value in model.named_parameters()}
    return {name: distance for name, distance in change.items() if distance > 0}


# --- methods ------------------------------------------------------------------------------------------

OWN = {
    "lora": ("lora_A", "lora_B"),
    "full": ("embeddings", "encoder.layer.0", "encoder.layer.1", "pooler"),
    "head": (),
    "bitfit": (".bias",),
    "ia3": ("ia3_l",),
    "vera": ("vera_lambda",),
    "adalora": ("lora_A", "lora_B", "lora_E"),
    "prompt": ("prompt_encoder",),
    "prefix": ("prompt_encoder",),
}


@pytest.mark.parametrize("method", list(OWN))
def test_each_method_trains_its_own_tensors_alone_and_its_loss_falls(tiny_model, method):
    rate = 3e-3 if method == "full" else 3e-2
    model, config = built(tiny_model, {"method": method}, train={"learning_rate": rate, "weight_decay": 0.0})
    before = snapshot(model)
    losses = descend(model, config, tiny_model, steps=20)
    assert losses[-1] < losses[0] - 0.03
    names = set(moved(before, model))
    own = {name for name in names if any(part in name for part in OWN[method])}
    head = {name for name in names if "modules_to_save" in name}
    assert names == own | head
    assert head
    for part in OWN[method]:
        assert any(part in name for name in names), part


INITS = ["default", "gaussian", "pissa", "olora", "eva"]


@pytest.fixture(scope="module")
def initial(tiny_model):
    """For each initialisation the logits before training, and the first A and B."""
    found = {}
    for init in INITS:
        model, config = built(tiny_model, {"init": init})
        weights = snapshot(model)
        a = next(value for name, value in weights.items() if "lora_A" in name)
        b = next(value for name, value in weights.items() if "lora_B" in name)
        found[init] = (logits(model, config), a, b)
    return found


def logits(model, config):
    tokenizer = tokenizer_of(config.model)
    batch = {k: v for k, v in tokenizer(TEXTS, padding=True, return_tensors="pt").items() if k != "token_type_ids"}
    with torch.inference_mode():
        return model.eval()(**batch).logits


@pytest.mark.parametrize("init", INITS)
def test_each_initialisation_leaves_the_output_and_has_factors_of_its_own(initial, init):
    outputs, a, b = initial[init]
    torch.testing.assert_close(outputs, initial["default"][0], rtol=0, atol=2e-5)
    for other in INITS:
        assert other == init or not torch.allclose(a, initial[other][1], atol=1e-4), other
    assert bool((b == 0).all()) == (init not in ("pissa", "olora"))


def test_adalora_moves_its_ranks_and_ends_at_its_target(tiny_model):
    model, config = built(tiny_model, {"method": "adalora", "rank": 6}, train={"learning_rate": 1e-2})
    ranks = Allocation(model)
    descend(model, config, tiny_model, steps=20, after_backward=ranks.step)
    left = ranks.ranks()
    assert ranks.settled
    assert sum(left.values()) == 4 * len(left)
    assert len(set(left.values())) > 1, "every layer has the same rank: nothing was allocated"


def test_a_step_whose_gradients_overflowed_says_nothing_of_adaloras_ranks(tiny_model):
    """As the first ones do in fp16, whose losses are scaled too far at first: no weight moves by them."""
    model, config = built(tiny_model, {"method": "adalora", "rank": 6}, train={"learning_rate": 1e-2})
    ranks = Allocation(model)

    def overflowed(step):
        if step == 1:
            for value in model.parameters():
                if value.grad is not None:
                    value.grad.fill_(torch.inf)
        ranks.step(step)

    descend(model, config, tiny_model, steps=20, after_backward=overflowed)
    left = ranks.ranks()
    assert sum(left.values()) == 4 * len(left)


def test_adalora_pulls_its_vectors_towards_orthogonal(tiny_model):
    model, _ = built(tiny_model, {"method": "adalora", "rank": 4})
    ranks = Allocation(model)
    factors = [value for name, value in model.named_parameters() if "lora_A" in name or "lora_B" in name]
    apart = []
    for value in factors:
        rows = value if value.shape[0] == 4 else value.T
        apart.append(torch.linalg.matrix_norm(rows @ rows.T - torch.eye(4)))
    torch.testing.assert_close(ranks.penalty(), 0.5 * torch.stack(apart).mean())


# --- options of an adapter ----------------------------------------------------------------------------


def test_dora_magnitudes_start_at_the_columns_norms_and_move(tiny_model):
    model, config = built(tiny_model, {"dora": True}, train={"learning_rate": 1e-2})
    before = snapshot(model)
    name = next(name for name in before if "lora_magnitude_vector" in name)
    base = name.split(".lora_magnitude")[0] + ".base_layer.weight"
    torch.testing.assert_close(before[name], before[base].norm(dim=1))
    descend(model, config, tiny_model)
    assert moved(before, model)[name] > 1e-3


@pytest.mark.parametrize(
    ("options", "scale"),
    [({"alpha": 8}, 2.0), ({"alpha": "3r"}, 3.0), ({"alpha": 8, "rslora": True}, 4.0)],
)
def test_alpha_and_rslora_set_the_scale_of_the_update(tiny_model, options, scale):
    model, _ = built(tiny_model, {**options, "scope": ["query"], "layers": [1]})
    layer = next(module for name, module in model.named_modules() if name.endswith("layer.1.attention.self.query"))
    with torch.no_grad():
        layer.lora_B["default"].weight.fill_(0.1)
    x = torch.ones(1, 32)
    update = layer(x) - layer.base_layer(x)
    expected = scale * layer.lora_B["default"](layer.lora_A["default"](x))
    torch.testing.assert_close(update, expected)


def test_dropout_changes_the_training_pass_and_follows_its_step(tiny_model):
    model, _ = built(tiny_model, {"dropout": 0.5, "init": "pissa"})
    for module in model.modules():  # the encoder's own dropout is not what is asked about
        if isinstance(module, torch.nn.Dropout) and module.p != 0.5:
            module.p = 0.0
    classifier = ReferenceClassifier(model, pad_token_id=0, precision="fp32").train()
    batch = classifier.collate([np.array([2, 5, 6, 7, 3])])
    seen = []
    for step in (1, 2, 1):
        classifier.set_step(step)
        seen.append(classifier(batch).detach())
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])


@pytest.mark.parametrize(("bias", "others_move"), [("lora_only", False), ("all", True)])
def test_biases_train_where_they_are_asked_to(tiny_model, bias, others_move):
    model, config = built(tiny_model, {"bias": bias}, train={"learning_rate": 1e-2})
    before = snapshot(model)
    descend(model, config, tiny_model)
    names = [name for name in moved(before, model) if name.endswith("bias") and "modules_to_save" not in name]
    assert any("query.base_layer.bias" in name for name in names)
    assert any("LayerNorm" in name for name in names) == others_move


def test_patterns_layers_and_ascending_ranks_change_the_shapes(tiny_model):
    def ranks(**adapter):
        model, _ = built(tiny_model, adapter)
        return {
            n.split("encoder.layer.")[1].split(".lora_A")[0]: len(v)
            for n, v in snapshot(model).items()
            if "lora_A" in n
        }

    assert set(ranks().values()) == {4}
    patterned = ranks(rank_pattern={"value": 2, "1.query": 7})
    assert patterned["0.attention.self.value"] == 2
    assert patterned["1.attention.self.query"] == 7
    assert patterned["0.attention.self.query"] == 4
    assert {name[0] for name in ranks(layers=[1])} == {"1"}
    ascending = ranks(rank_pattern="ascending", rank=6)
    assert ascending["1.attention.self.query"] > ascending["0.attention.self.query"]


def test_an_alpha_pattern_changes_one_scale(tiny_model):
    model, _ = built(tiny_model, {"alpha": 4, "alpha_pattern": {"1.value": 12}})
    scales = {n: m.scaling["default"] for n, m in model.named_modules() if hasattr(m, "lora_A") and m.scaling}
    assert sorted(set(scales.values())) == [1.0, 3.0]


@pytest.mark.parametrize(("kind", "trains"), [("full", "weight"), ("output", "weight"), ("low_rank", "lora_A")])
def test_each_head_trains_what_it_says(tiny_model, kind, trains):
    model, config = built(tiny_model, {"method": "head"}, head={"kind": kind, "rank": 2}, train={"learning_rate": 1e-2})
    before = snapshot(model)
    descend(model, config, tiny_model)
    names = list(moved(before, model))
    assert any("classifier" in name for name in names)
    assert any("lora_A" in name for name in names) == (kind == "low_rank")
    assert (
        sum(value.numel() for value in model.parameters() if value.requires_grad) == planning.plan(config, 3).trainable
    )


# --- optimizer, rates, loss ---------------------------------------------------------------------------


def test_every_optimizer_lowers_the_loss_on_a_path_of_its_own(tiny_model):
    ends = {}
    for name in ("adamw", "adam", "sgd", "rmsprop", "adagrad", "muon"):
        rate = 0.3 if name == "sgd" else 5e-3
        model, config = built(tiny_model, train={"optimizer": name, "learning_rate": rate, "weight_decay": 0.5})
        losses = descend(model, config, tiny_model, steps=10)
        assert losses[-1] < losses[0], name
        ends[name] = losses[-1]
    assert len({round(end, 6) for end in ends.values()}) == 6


def first_step(tiny_model, **train):
    """How far each kind of parameter moves in one step of plain SGD, from a model whose A and B both have gradients."""
    model, config = built(tiny_model, {"init": "pissa"}, train={"optimizer": "sgd", "weight_decay": 0.0, **train})
    before = snapshot(model)
    descend(model, config, tiny_model, steps=1)
    far = {"A": 0.0, "B": 0.0, "head": 0.0}
    for name, distance in moved(before, model).items():
        role = "A" if "lora_A" in name else "B" if "lora_B" in name else "head"
        far[role] = max(far[role], distance)
    return far


def test_lora_plus_moves_b_further_and_the_head_has_its_own_rate(tiny_model):
    plain = first_step(tiny_model, learning_rate=1e-3)
    plus = first_step(tiny_model, learning_rate=1e-3, loraplus_ratio=16)
    head = first_step(tiny_model, learning_rate=1e-3, head_learning_rate=2e-2)
    assert plus["B"] == pytest.approx(16 * plain["B"], rel=1e-2)
    assert plus["A"] == pytest.approx(plain["A"], rel=1e-2)
    assert head["head"] == pytest.approx(20 * plain["head"], rel=1e-2)
    assert head["A"] == pytest.approx(plain["A"], rel=1e-2)


def test_momentum_and_weight_decay_change_the_weights(tiny_model):
    def size(**train):
        options = {"optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 0.0} | train
        model, config = built(tiny_model, train=options)
        losses = descend(model, config, tiny_model, steps=6)
        return losses[-1], sum(v.square().sum().item() for n, v in model.named_parameters() if "lora_A" in n)

    loss, norm = size()
    with_momentum, _ = size(momentum=0.9)
    assert with_momentum < loss
    _, decayed = size(weight_decay=0.5)
    assert decayed < 0.8 * norm


def test_class_weights_shift_predictions_and_smoothing_holds_the_loss_up(tiny_model):
    def probabilities(**train):
        model, config = built(tiny_model, train={"learning_rate": 1e-2, **train})
        losses = descend(model, config, tiny_model, steps=30)
        return logits(model, config).softmax(dim=1), losses[-1]

    _, sharp = probabilities(learning_rate=3e-2)
    plain, _ = probabilities(learning_rate=5e-3)
    weighted, _ = probabilities(learning_rate=5e-3, class_weights=[1.0, 20.0, 1.0])
    assert weighted[:, 1].mean() > plain[:, 1].mean() + 0.1
    _, smoothed = probabilities(learning_rate=3e-2, label_smoothing=0.3)
    floor = -(0.8 * np.log(0.8) + 2 * 0.1 * np.log(0.1)) - 1e-6  # entropy of the target 0.8, 0.1, 0.1
    assert smoothed > floor > sharp
