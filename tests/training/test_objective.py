"""The loss: both options at once, and the same gradient however a batch is cut."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from rankwise.config import Train
from rankwise.errors import UserError
from rankwise.training.objective import objective

LOGITS = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
LABELS = np.array([0, 1, 2, 0, 0, 1])


def test_smoothing_and_class_weights_apply_together():
    train = Train(label_smoothing=0.1, class_weights=[1.0, 2.0, 3.0])
    ours = objective(train, LABELS, 3, multi_label=False)
    loss = ours.total(LOGITS, torch.from_numpy(LABELS)) / ours.normaliser(LABELS)
    expected = F.cross_entropy(
        LOGITS, torch.from_numpy(LABELS), weight=torch.tensor([1.0, 2.0, 3.0]), label_smoothing=0.1
    )
    torch.testing.assert_close(loss, expected)


def test_smoothing_puts_a_floor_under_the_loss():
    ours = objective(Train(label_smoothing=0.1), LABELS, 4, multi_label=False)
    perfect = torch.full((1, 4), 0.025)
    perfect[0, 2] = 0.925
    loss = ours.total(perfect.log(), torch.tensor([2]))
    # The entropy of the smoothed target: the papers' logs lie below it, so theirs was off.
    assert loss.item() == pytest.approx(0.3488, abs=1e-4)


def test_balanced_weights_follow_inverse_frequency():
    ours = objective(Train(class_weights="balanced"), LABELS, 3, multi_label=False)
    torch.testing.assert_close(ours.class_weights, torch.tensor([6 / 9, 1.0, 2.0]))


def test_the_gradient_does_not_depend_on_the_cut():
    ours = objective(Train(class_weights="balanced", label_smoothing=0.2), LABELS, 3, multi_label=False)
    whole, pieces = LOGITS.clone().requires_grad_(), LOGITS.clone().requires_grad_()
    (ours.total(whole, torch.from_numpy(LABELS)) / ours.normaliser(LABELS)).backward()
    for part in (slice(0, 1), slice(1, 6)):
        (ours.total(pieces[part], torch.from_numpy(LABELS[part])) / ours.normaliser(LABELS)).backward()
    torch.testing.assert_close(whole.grad, pieces.grad)


def test_multi_label_counts_whole_sets_and_averages_over_labels():
    labels = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    logits = torch.tensor([[2.0, -2.0], [2.0, -2.0]])
    ours = objective(Train(), labels.numpy(), 2, multi_label=True)
    assert ours.correct(logits, labels) == 1
    expected = F.binary_cross_entropy_with_logits(logits, labels)
    torch.testing.assert_close(ours.total(logits, labels) / ours.normaliser(labels.numpy()), expected)


def test_a_wrong_number_of_class_weights_is_refused():
    with pytest.raises(UserError, match="2 numbers, the data has 3 classes"):
        objective(Train(class_weights=[1.0, 2.0]), LABELS, 3, multi_label=False)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.99])
def test_balanced_labels_weigh_as_much_where_they_are_as_where_they_are_not(share):
    rows = 1000
    labels = np.zeros((rows, 2), dtype=np.int64)
    labels[: int(share * rows), 0] = 1
    labels[::2, 1] = 1
    ours = objective(Train(class_weights="balanced"), labels, 2, multi_label=True)
    logits = torch.zeros(rows, 2, requires_grad=True)
    loss = ours.total(logits, torch.from_numpy(labels)) / ours.normaliser(labels)
    assert loss.item() == pytest.approx(np.log(2), rel=1e-4)
    loss.backward()
    present = torch.from_numpy(labels == 1)
    for label in range(2):
        pulls = logits.grad[present[:, label], label].sum(), logits.grad[~present[:, label], label].sum()
        torch.testing.assert_close(pulls[0], -pulls[1], rtol=1e-4, atol=1e-7)
