"""Questions put to a project's knowledge bases: settings found with them, and questions written where none are."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tailorbird.errors import DataError, InputError
from tailorbird.knowledge_bases import KnowledgeBases, connector_of
from tailorbird.sources.knowledge_base import INDEX, KnowledgeBase, reranker_of
from tailorbird.sources.ranking import Ranking
from tailorbird.sources.stores import SearchSettings

if TYPE_CHECKING:
    from tailorbird.evaluation.answering import AnswerScores
    from tailorbird.evaluation.sweeping import Setting, Sweep
    from tailorbird.records import Completion
    from tailorbird.sources.index import KnowledgeIndex

LEAST_CHARS = 50


@dataclass(frozen=True)
class WrittenQuestions:
    """What was written: how many questions about how many documents, and how many documents gave none."""

    path: Path
    questions: int
    documents: int
    without: int


@dataclass(frozen=True)
class KnowledgeQuestions:
    """What is asked of a project's knowledge bases.

    Args:
        state: the project's state folder.
    """

    state: Path

    def rank(self, name: str, changes: Mapping[str, Any]) -> Ranking:
        """How a knowledge base ranks passages, after these changes; models that were saved keep theirs.

        Args:
            name: of the knowledge base.
            changes: fields of its `Ranking` with their new values; none leaves it as it is.

        Raises:
            NotFound: there is no such knowledge base, or no such reranker.
            InputError: a setting is out of its range.
        """
        base = KnowledgeBases(self.state).read(name)
        ranking = replace(base.ranking, **changes)
        if ranking != base.ranking:
            reranker_of(ranking)  # it can be opened
            KnowledgeBases(self.state).change(name, ranking=ranking)
        return ranking

    def answers(
        self,
        model: str,
        answer: Callable[[Sequence[str]], Sequence[Completion]],
        examples: Path,
        on_answers: Callable[[int, int], None] | None = None,
    ) -> AnswerScores:
        """How right a model's answers are, and how well they cite: see `evaluation.answering`.

        Args:
            model: its name.
            answer: gives its completions to questions, in their order.
            examples: a file of questions, whose `document` names what holds the answer.
            on_answers: called with how many are answered, of how many.

        Raises:
            NotFound: there is no such file.
            DataError: the examples can't be used, or none can be judged.
        """
        from tailorbird.data.formats import read_examples
        from tailorbird.evaluation.answering import answer_scores

        return answer_scores(model, answer, read_examples(examples), on_answers)

    def sweep(
        self,
        name: str,
        examples: Path,
        max_chars: Sequence[int] = (),
        *,
        rerank: bool = True,
        tune: bool = False,
        on_setting: Callable[[Setting], None] | None = None,
    ) -> Sweep:
        """Which settings find the documents best: see `evaluation.sweeping`.

        Args:
            name: of the knowledge base.
            examples: a file of questions, whose `document` names what holds the answer.
            max_chars: further lengths of a passage to try; each is embedded in a place of its own.
            rerank: whether reranking is tried.
            tune: records the ranking that was chosen, where the held-out questions too find it better.
            on_setting: told which setting is asked next.

        Raises:
            NotFound: there is none of that name, or no such file.
            DataError: the examples can't be used, or too few name their document.
            InputError: a length makes no sense.
        """
        from tailorbird.data.formats import read_examples
        from tailorbird.evaluation.sweeping import Setting, rankings_to_try, sweep

        base = KnowledgeBases(self.state).read(name)
        for length in max_chars:
            if length < LEAST_CHARS:
                raise InputError(
                    f"--max-chars {length}: expected {LEAST_CHARS} or more characters of a passage."
                )
        lengths = list(dict.fromkeys((base.max_chars, *max_chars)))
        rankings = rankings_to_try(base.ranking, rerank=rerank)
        settings = [Setting(length, ranking) for length in lengths for ranking in rankings]
        with _Indexes(base) as indexes:
            found = sweep(read_examples(examples), indexes.of, settings, on_setting)
        if tune and found.confirmed_better and found.chosen.max_chars == base.max_chars:
            KnowledgeBases(self.state).change(name, ranking=found.chosen.ranking)
        return found

    def write(
        self, name: str, out: Path, per_document: int = 5, proposer: str | None = None, key_env: str = ""
    ) -> WrittenQuestions:
        """Writes questions about the documents to a file of examples, each marked as synthetic.

        Args:
            name: of the knowledge base.
            out: the file; it must not be there yet.
            per_document: questions about each document, at most.
            proposer: `URL#model` of an endpoint that writes them; None writes them by rule.
            key_env: environment variable that holds the endpoint's key.

        Raises:
            NotFound: there is none of that name.
            InputError: the file is there already, or the number makes no sense.
            DataError: no document gives a question.
            EndpointError: the endpoint fails.
        """
        from tailorbird.data.formats import write_examples
        from tailorbird.data.question_writing import written_questions

        if out.exists():
            raise InputError(f"{out}: is there already. Name another file with --out, or remove it first.")
        if not out.resolve().parent.is_dir():
            raise InputError(f"{out}: there is no folder {out.parent}. Make it first, or name another file.")
        if per_document < 1:
            raise InputError(f"--per-document {per_document}: expected 1 or more questions of each document.")
        with KnowledgeBases(self.state).read(name).index() as index:
            documents = [index.passages_of(document) for document in sorted(index.document_names())]
        if proposer is None:
            found = written_questions(documents, per_document)
        else:
            from tailorbird.techniques.proposing import endpoint
            from tailorbird.techniques.question_proposing import proposed_questions

            found = proposed_questions(endpoint(proposer, key_env, "knowledge"), documents, per_document)
        if not found:
            raise DataError(
                f"knowledge {name!r}: none of its {len(documents)} documents gave a question. Let an endpoint write "
                "them with --proposer URL#model, or ask some yourself."
            )
        write_examples(out, found)
        asked = {example.document for example in found}
        return WrittenQuestions(out, len(found), len(asked), len(documents) - len(asked))


class _Indexes(contextlib.ExitStack):
    """A knowledge base's index with other settings; one with other passages is made aside, and gone afterwards."""

    def __init__(self, base: KnowledgeBase) -> None:
        super().__init__()
        self._base = base
        self._open: dict[int, KnowledgeIndex] = {}

    def of(self, setting: Setting) -> KnowledgeIndex:
        """An index whose passages and ranking are these; the one before it has these from now on."""
        index = self._open.get(setting.max_chars)
        if index is None:
            index = self._open[setting.max_chars] = self._opened(setting.max_chars)
        if index.ranking != setting.ranking:
            index.ranking, index.reranker = setting.ranking, reranker_of(setting.ranking)
        return index

    def _opened(self, max_chars: int) -> KnowledgeIndex:
        index = self.enter_context(self._base.index())
        if max_chars == self._base.max_chars:
            return index
        folder = Path(self.enter_context(tempfile.TemporaryDirectory(dir=self._base.folder, prefix=".sweep")))
        index.copy(folder / INDEX)  # vectors of texts that stay the same are not made again
        # In memory: a store on a server would take the copy for the index itself, which it replaces.
        alone = SearchSettings(store="numpy", words="fts5")
        base = replace(self._base, folder=folder, max_chars=max_chars, search=alone)
        aside = self.enter_context(base.index())
        for origin in self._base.origins:
            aside.sync(connector_of(origin.kind, origin.place, origin.settings))
        return aside
