"""Whose opinion of a comparison's answers is asked: opened before, asked after; the verdict stands without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tailorbird.catalogue import model_folder
from tailorbird.errors import TailorbirdError
from tailorbird.making import base_identity
from tailorbird.opening import open_reference
from tailorbird.planning import Plan
from tailorbird.references import is_reference, is_remote
from tailorbird.wanted import JudgeChoice

if TYPE_CHECKING:
    from tailorbird.evaluation.answer_cache import AnswerCache
    from tailorbird.evaluation.comparison import Comparison


def check_judge(state: Path, choice: JudgeChoice) -> None:
    """Whether there is such a model; local weights are not loaded for it.

    Raises:
        NotFound: there is none.
        InputError: an endpoint without a model's id.
    """
    here = model_folder(state, choice.reference) is not None
    if not here and (is_remote(choice.reference) or not is_reference(choice.reference)):
        open_reference(state, choice.reference, choice.key_env)


def judged(
    state: Path,
    plan: Plan,
    choice: JudgeChoice,
    comparison: Comparison,
    *,
    cache: AnswerCache | None = None,
    on_event: Callable[[Any], None] | None = None,
) -> Comparison:
    """The comparison with the judge's opinion, in the run's folder too; what the cache knows is not asked again."""
    from tailorbird.evaluation.arms import StageProgress
    from tailorbird.evaluation.judgement import Judgement
    from tailorbird.evaluation.judging import Judge, judge_answers
    from tailorbird.evaluation.run_folder import save_comparison

    def tell(done: int, total: int) -> None:
        if on_event:
            on_event(StageProgress("judge", "judge", done, total))

    try:
        model = open_reference(state, choice.reference, choice.key_env).model
    except TailorbirdError as error:  # hours of work are not lost for an opinion
        found = Judgement(choice.reference, comparison.verdict.arm, comparison.metric, failed=str(error))
    else:
        judge = Judge(model, choice.reference, base_identity(state, choice.reference))
        found = judge_answers(
            comparison,
            judge,
            limit=choice.limit,
            cache=cache,
            on_progress=tell,
        )
    is_base = any(choice.reference == base.reference for base in plan.bases)
    told = replace(comparison, judge=replace(found, is_base=is_base))
    save_comparison(plan.folder, told)
    return told
