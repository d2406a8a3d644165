"""Twenty steps of training, number by number: a refactoring must reproduce them."""

import pytest

from tailorbird.network.decoder import Decoder, DecoderShape
from tailorbird.network.sequences import TokenSequence, blocks
from tailorbird.network.settings import TrainSettings
from tailorbird.network.training import train

TEXT = (
    "The tailorbird sews its nest. With its thin bill it pierces the edges of a living leaf, draws through "
    "them threads of plant fibre, cotton or spider silk, and stitches a cradle in which it builds. "
) * 2
SETTINGS = TrainSettings(
    learning_rate=3e-3, max_steps=20, batch_size=4, warmup_fraction=0.1, weight_decay=0.1, seed=0
)


def losses(sequences, settings=SETTINGS):
    decoder = Decoder(DecoderShape(128, 32, 2, 4, 2, 64, 64), seed=0)
    return train(decoder, dict(decoder.named_parameters()), sequences, settings).losses


def pre_training():
    return losses(blocks(TEXT.encode("ascii"), context=32))


def fine_tuning():
    words = TEXT.split()[:24]
    pairs = [(f"Spell backwards: {word} -> ".encode(), f"{word[::-1]}\n".encode()) for word in words]
    return losses([TokenSequence(tuple(prompt), tuple(completion)) for prompt, completion in pairs])


# fmt: off
GOLDEN = {
    pre_training: [
        4.84636, 4.78109, 4.7152, 4.48553, 4.35012, 4.22641, 4.11204, 4.03408, 3.93201, 3.85352,
        3.8014, 3.70875, 3.66604, 3.63883, 3.64087, 3.5584, 3.58214, 3.57966, 3.56637, 3.48939,
    ],
    fine_tuning: [
        4.8549, 4.8354, 4.70115, 4.55422, 4.48042, 4.40026, 4.29161, 4.15984, 4.09532, 4.01871,
        3.97656, 3.83908, 3.83153, 3.76073, 3.82691, 3.77311, 3.76726, 3.65608, 3.75715, 3.72163,
    ],
}
# fmt: on


@pytest.mark.parametrize("task", GOLDEN, ids=lambda task: task.__name__)
def test_the_loss_curve_is_the_committed_one(task):
    assert task() == pytest.approx(GOLDEN[task], abs=1e-4)


@pytest.mark.parametrize("task", GOLDEN, ids=lambda task: task.__name__)
def test_the_loss_curve_falls(task):
    curve = task()
    assert sum(curve[-3:]) / 3 < 0.8 * curve[0]
