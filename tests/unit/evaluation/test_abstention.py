import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from tailorbird.evaluation.abstention import SHOWN, abstention_curve, auroc

SCORED = st.lists(st.tuples(st.integers(0, 6).map(lambda n: n / 6), st.booleans()), min_size=1, max_size=40)


@given(SCORED)
def test_auroc_agrees_with_sklearn(scored):
    scores, right = zip(*scored, strict=True)
    if len(set(right)) < 2:
        assert auroc(scores, right) is None
    else:
        assert auroc(scores, right) == pytest.approx(roc_auc_score(right, scores))


@given(SCORED)
def test_the_curve_is_the_share_of_wrong_ones_among_those_answered(scored):
    scores, right = zip(*scored, strict=True)
    curve = abstention_curve("similarity", scores, right)
    for point in curve.points:
        answered = [r for s, r in scored if s >= point.threshold]
        assert point.coverage == pytest.approx(len(answered) / len(scored))
        assert point.risk == pytest.approx(1 - np.mean(answered))
    assert curve.points[-1].coverage == 1
    assert 0 <= curve.aurc <= 1


def test_a_score_that_tells_all_has_no_risk_where_it_is_sure():
    curve = abstention_curve("similarity", [0.9, 0.8, 0.2, 0.1], [True, True, False, False])
    assert (curve.auroc, curve.points[0].risk, curve.points[-1].risk) == (1, 0, 0.5)
    assert curve.aurc == pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4)
    assert len(curve.points) <= len(SHOWN)
    assert json.loads(json.dumps(curve.to_json()))["points"][0]["threshold"] == 0.9
