"""What is left of a clock after its trials: a run of the winner's design for longer, where it fits."""

from types import SimpleNamespace

from rankwise.deadline import Deadline
from rankwise.search.after import longer


def test_steps_as_fast_as_planned_keep_the_end_as_it_was_planned(monkeypatch):
    """However long the winner's evaluations and head took beside its steps."""
    timing = SimpleNamespace(steps=100, train_s=10.0, eval_s=30.0)
    run = SimpleNamespace(record=SimpleNamespace(timing=timing), config=None)
    asked = []

    def trained(tree, *_, **__):
        asked.append(tree["train"]["steps"])
        raise longer.UserError("enough")

    monkeypatch.setattr(longer, "Run", lambda path: run)
    run.config = SimpleNamespace(train=SimpleNamespace(seed=0))
    monkeypatch.setattr(longer.configuration, "to_dict", lambda config: {"train": {}})
    monkeypatch.setattr(longer, "trained", trained)
    monkeypatch.setattr("rankwise.deadline.time.time", lambda: 0.0)
    winner = SimpleNamespace(run="trials/0000")
    for step_s, steps in ((0.1, 180), (0.05, 135)):
        assert longer.longer(winner, longer.Path("nowhere"), Deadline(100.0, 20.0, step_s)) is None
        assert asked.pop() == steps
