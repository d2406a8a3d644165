import pytest

from tailorbird.errors import RecipeError
from tailorbird.network.settings import TrainResult, TrainSettings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be above 0 and finite. Got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0 and finite. Got nan"),
        ({"epochs": -1}, "epochs must be above 0"),
        ({"clip_norm": 0}, "clip_norm must be above 0"),
        ({"batch_size": 0}, "batch_size must be at least 1. Got 0"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"warmup_fraction": 1.0}, r"warmup_fraction must lie in \[0, 1\). Got 1.0"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0"),
        (
            {"schedule": "step"},
            "schedule 'step' is unknown. Choose one of \\['cosine', 'linear', 'constant'\\]",
        ),
        ({"optimizer": "sgd"}, "optimizer 'sgd' is unknown"),
    ],
)
def test_senseless_settings_are_refused(changes, message):
    with pytest.raises(RecipeError, match=message):
        TrainSettings(**changes)


def test_the_shared_fraction_is_that_of_all_input_tokens():
    result = TrainResult(1, 0.5, (0.5,), None, None, False, tokens=200, shared_tokens=50, seconds=1.0)
    assert result.shared_fraction == 0.25
