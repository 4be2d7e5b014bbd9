import pytest
import torch
from torch import nn

from charlm.training.averaging import WeightAverage


def filled(value: float) -> nn.Linear:
    model = nn.Linear(2, 1)
    for weight in model.parameters():
        weight.detach().fill_(value)
    return model


def test_the_average_of_the_first_updates_is_their_last_weights() -> None:
    model = filled(0.0)
    average = WeightAverage(model)
    model.weight.detach().fill_(3.0)
    average.update(1, 1.0)  # the window is shorter than an update
    assert (average.weights["weight"] == 3).all()


def test_the_window_is_a_tenth_of_the_updates_and_shrinks_with_the_learning_rate() -> None:
    for rate_share, expected in ((1.0, 0.2), (0.5, 0.4)):
        model = filled(0.0)
        average = WeightAverage(model)
        model.weight.detach().fill_(1.0)
        average.update(50, rate_share)
        torch.testing.assert_close(average.weights["weight"], torch.full((1, 2), expected))


def test_after_64_updates_every_eighth_is_added() -> None:
    model = filled(0.0)
    average = WeightAverage(model)
    model.weight.detach().fill_(1.0)
    average.update(65, 1.0)
    assert not average.weights["weight"].any()
    average.update(800, 1.0)
    torch.testing.assert_close(average.weights["weight"], torch.full((1, 2), 0.1))


@pytest.mark.parametrize("half", [False, True])
def test_averages_replace_the_weights_within_the_context_only(half: bool) -> None:
    model = filled(0.1)
    average = WeightAverage(model)
    model.weight.detach().fill_(5.0)
    with average.applied(half=half):
        assert (model.weight == (torch.tensor(0.1).half().float() if half else 0.1)).all()
    assert (model.weight == 5).all()
