"""The verdict so far is shown while a comparison runs; nothing is decided by it."""

from scripted_arms import Builds, Scripted, classify_data

from tailorbird.evaluation.arms import VerdictSoFar
from tailorbird.evaluation.compare import compare
from tailorbird.evaluation.metrics import default_metrics


def test_a_clear_winner_on_the_way_stops_no_arm_and_the_last_look_alone_is_the_verdict():
    data, builds, seen = classify_data(), Builds(), []
    arms = [
        builds.arm("poor", lambda: Scripted(0.1, "p")),
        builds.arm("good", lambda: Scripted(0.8, "g")),
        builds.arm("better", lambda: Scripted(1.0, "b")),
    ]
    found = compare(arms, data, default_metrics(data.task), primary="accuracy", on_event=seen.append)
    looks = [event.verdict for event in seen if isinstance(event, VerdictSoFar)]
    assert [look.arm for look in looks[1:]] == ["good", "better"]
    assert looks[1].kind == "winner"
    assert builds.counts == {"poor": 1, "good": 1, "better": 1}
    assert found.verdict == looks[-1]
    unwatched = compare(arms, data, default_metrics(data.task), primary="accuracy")
    assert unwatched.verdict == found.verdict
