"""The learning rate of pretraining: warmup, then what the schedule leaves."""

import pytest

from fastgrpo.schedule import learning_rate


@pytest.mark.parametrize(
    ("schedule", "warmup", "rates"),
    [
        ("constant", 0, [1, 1, 1, 1]),
        ("constant", 2, [0.5, 1, 1, 1]),
        ("linear", 0, [1, 0.75, 0.5, 0.25]),
        ("linear", 4, [0.25, 0.5, 0.5, 0.25]),  # the smaller of both
        ("cosine", 0, [1, 0.8535533905932737, 0.5, 0.1464466094067262]),
    ],
)
def test_warmup_and_schedule(schedule, warmup, rates):
    lr_at = learning_rate(2.0, warmup, schedule, 4)
    assert [lr_at(update) for update in range(4)] == pytest.approx([2 * rate for rate in rates], rel=1e-15)
