"""`tailor knowledge evaluate`, `rank` and `questions`: what knowledge is asked, and what it is worth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from tailorbird.cli.knowing import Name, knowledge
from tailorbird.cli.options import AsJson
from tailorbird.cli.output import print_json, print_table, remark, say
from tailorbird.cli.project import project_of
from tailorbird.errors import InputError


@knowledge.command()
def evaluate(
    context: typer.Context,
    name: Name,
    examples: Annotated[
        Path,
        typer.Option("--examples", metavar="FILE", help="Questions; `document` names what holds the answer."),
    ],
    *,
    count: Annotated[
        int | None, typer.Option("-k", metavar="N", min=1, help="Passages a model is given (3).")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="NAME", help="Ask this model too: its answers and what they cite."),
    ] = None,
    sweep: Annotated[
        bool,
        typer.Option("--sweep", help="Try other settings on half of the questions, confirm on the rest."),
    ] = False,
    max_chars: Annotated[
        str | None,
        typer.Option("--max-chars", metavar="N,N", help="With --sweep: other lengths of a passage too."),
    ] = None,
    rerank: Annotated[
        bool, typer.Option("--rerank/--no-rerank", help="With --sweep: whether reranking is tried.")
    ] = True,
    tune: Annotated[
        bool,
        typer.Option("--tune", help="As --sweep, and record the best ranking where the rest confirms it."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure how well the documents that hold the answers are found."""
    workbench = project_of(context).workbench()
    if not sweep and not tune:
        if max_chars is not None or not rerank:
            raise InputError(
                "--max-chars and --no-rerank go with --sweep or --tune. Add one, or leave them out."
            )
        report = workbench.knowledge.evaluate(name, examples, count or 3)
        answers = None
        if model is not None:
            opened = workbench.open(model)
            questions = workbench.knowledge_questions
            answers = questions.answers(
                opened.id, opened.ask_all, examples, None if as_json else _tell_answers(opened.id)
            )
        if as_json:
            print_json({**report.to_json(), **({"answers": answers.to_json()} if answers else {})})
            return
        _show_report(name, report)
        if answers is not None:
            _show_answers(answers)
        return
    if count is not None or model is not None:
        raise InputError("-k and --model go with neither --sweep nor --tune. Leave one out.")
    questions = workbench.knowledge_questions
    found = questions.sweep(
        name,
        examples,
        _lengths(max_chars),
        rerank=rerank,
        tune=tune,
        on_setting=None if as_json else lambda setting: remark(f"asking with {setting.label}", dim=True),
    )
    recorded = questions.rank(name, {}).to_json()
    if as_json:
        print_json({**found.to_json(), "recorded": recorded})
        return
    _show_sweep(found)
    if tune:
        length = found.chosen.max_chars
        if length != found.present.max_chars:
            say(
                f"Passages of {length} characters need a place of their own: tailor knowledge add --max-chars {length}."
            )
        is_new = recorded != found.present.ranking.to_json()
        say(f"{name}: {'ranked so from now on' if is_new else 'ranked as before'}.")


@knowledge.command()
def rank(
    context: typer.Context,
    name: Name,
    *,
    fusion: Annotated[
        str | None, typer.Option(metavar="scores|ranks", help="What of both rankings is added.")
    ] = None,
    words_weight: Annotated[float | None, typer.Option(metavar="W", help="Of the ranking by words.")] = None,
    meaning_weight: Annotated[
        float | None, typer.Option(metavar="W", help="Of the ranking by meaning.")
    ] = None,
    fusion_k: Annotated[
        int | None, typer.Option(metavar="N", help="Of `ranks`: how little the first stand out.")
    ] = None,
    rerank: Annotated[
        int | None, typer.Option(metavar="N", help="How many of the first are read again; 0 for none.")
    ] = None,
    reranker: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="A cross-encoder's folder or hf:org/name; '' for the embedder's tokens."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show how a knowledge base ranks passages, or change it."""
    given = {
        "fusion": fusion,
        "words_weight": words_weight,
        "meaning_weight": meaning_weight,
        "fusion_k": fusion_k,
        "rerank": rerank,
        "reranker": reranker,
    }
    changes = {key: value for key, value in given.items() if value is not None}
    ranking = project_of(context).workbench().knowledge_questions.rank(name, changes)
    if as_json:
        print_json(ranking.to_json())
    else:
        print_table(["setting", "value"], [[key, str(value)] for key, value in ranking.to_json().items()])


@knowledge.command()
def questions(
    context: typer.Context,
    name: Name,
    *,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The file of examples to write.")],
    per_document: Annotated[
        int,
        typer.Option("--per-document", metavar="N", min=1, help="Questions about each document, at most."),
    ] = 5,
    proposer: Annotated[
        str | None,
        typer.Option(
            metavar="URL#MODEL", help="An endpoint that writes them; without it they are made by rule."
        ),
    ] = None,
    key_env: Annotated[
        str, typer.Option(metavar="NAME", help="Environment variable that holds the endpoint's key.")
    ] = "OPENAI_API_KEY",
    as_json: AsJson = False,
) -> None:
    """Write questions about the documents, where nobody has asked any; they are marked and never measure."""
    workbench = project_of(context).workbench()
    written = workbench.knowledge_questions.write(name, out, per_document, proposer, key_env)
    if as_json:
        print_json(
            {
                "file": str(out),
                "questions": written.questions,
                "documents": written.documents,
                "without": written.without,
            }
        )
        return
    say(f"{out}: {written.questions} synthetic questions about {written.documents} documents.")
    if written.without:
        say(f"{written.without} documents gave none.")


def _lengths(text: str | None) -> list[int]:
    try:
        return [int(part) for part in (text or "").split(",") if part.strip()]
    except ValueError:
        raise InputError(f"--max-chars {text!r}: expected numbers of characters, such as 300,900.") from None


def _show_report(name: str, report: Any) -> None:
    metrics = list(report.rankings[0].scores)
    rows = [
        [ranking.name, *map(_percent, ranking.scores.values()), f"{1000 * ranking.median_s:.1f} ms"]
        for ranking in report.rankings
    ]
    print_table(["found by", *metrics, "a question"], rows)
    say(f"{report.questions} questions, 95 % intervals.")
    if report.synthetic:
        say(
            f"{report.synthetic} of them are synthetic: easier to find by their words than people's questions."
        )
    if report.unknown:
        say(f"{report.unknown} of them name a document that is not in {name}; none can be found.")
    if passages := report.passages:
        parts = ", ".join(f"{metric} {_percent(i)}" for metric, i in passages.scores.items())
        say(
            f"The first {passages.k} passages ({passages.characters:.0f} characters) and {passages.questions} answers "
            f"whose place is known: {parts}."
        )
    if refusal := report.refusal:
        shares = [f"of {refusal.answerable} questions with an answer {_percent(refusal.kept)} % pass"]
        if refusal.refused:
            shares.append(f"of {refusal.unanswerable} without one {_percent(refusal.refused)} % are refused")
        if refusal.left_out:
            shares.append(
                f"with their document left out {_percent(refusal.left_out)} % of the first are refused"
            )
        say(
            f"Refusing, judged on questions the gate was not fitted to: {'; '.join(shares)} "
            f"(AUROC {refusal.auroc:.3f}, by similarity alone {refusal.similarity_auroc:.3f})."
        )
    for curve in report.abstention:
        if curve.auroc is None:
            continue
        shown = ", ".join(
            f"{100 * p.risk:.0f} % of the surest {100 * p.coverage:.0f} %" for p in curve.points
        )
        say(
            f"Answered by {curve.score}, not found: {shown} (AUROC {curve.auroc:.3f}, AURC {curve.aurc:.3f})."
        )


def _tell_answers(model: str) -> Callable[[int, int], None]:
    return lambda done, total: remark(f"{model} answered {done} of {total} questions", dim=True)


def _show_answers(answers: Any) -> None:
    rows = [[name.replace("_", " "), _percent(interval)] for name, interval in answers.intervals().items()]
    say()
    print_table([answers.model, f"of {answers.questions} questions"], rows)


def _show_sweep(found: Any) -> None:
    rows: list[list[str]] = []
    for row in sorted(found.rows, key=lambda row: -row.score.mean):
        mark = "best" if row.difference.mean == row.difference.low == 0 else "" if row.tied else "worse"
        rows.append(
            [
                row.setting.label,
                _percent(row.score),
                _signed(row.difference),
                mark,
                f"{1000 * row.median_s:.1f} ms",
            ]
        )
    print_table(["setting", "ndcg@10", "beside the best", "", "a question"], rows)
    evidence: list[list[Any]] = [
        [
            str(row.k),
            f"{row.characters:.0f}",
            _percent(row.document),
            _percent(row.answer) if row.answer else "",
            _percent(row.iou) if row.iou else "",
        ]
        for row in found.evidence
    ]
    say()
    print_table(["passages (k)", "characters", "document among them", "of the answer", "IoU"], evidence)
    say()
    also = f" ({found.synthetic} of them synthetic)" if found.synthetic else ""
    say(f"Chosen on {found.questions} questions{also}: {found.sentence}")


def _percent(found: Any) -> str:
    return f"{100 * found.mean:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})"


def _signed(found: Any) -> str:
    return f"{100 * found.mean:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
