import pytest

from tailorbird.data.task import Data, Task
from tailorbird.errors import DataError, RecipeError
from tailorbird.models.blank import Blank
from tailorbird.models.model import as_seen_by_weights
from tailorbird.records import Example, Message, Request
from tailorbird.techniques.few_shot import FewShot, load_metaprompt
from tailorbird.techniques.selection import balanced
from tailorbird.testing.sources import WordHash
from tailorbird.testing.tiny import tiny_data

DATA = tiny_data()
TASK = DATA.task


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr("tailorbird.sources.embedder._default_embedder", WordHash)


def shown(technique, request, data=DATA):
    """The (prompt, completion) pairs that a request gets, in order."""
    messages = as_seen_by_weights(technique.apply(Blank(), data), request).conversation
    turns = [m for m in messages if m.role != "system"][:-1]
    assert [m.role for m in turns] == ["user", "assistant"] * (len(turns) // 2)
    return [(turns[n].content, turns[n + 1].content) for n in range(0, len(turns), 2)]


@pytest.mark.parametrize("select", ["fixed", "balanced", "nearest"])
def test_a_training_example_never_sees_itself_nor_one_with_its_prompt(select):
    twins = tuple(Example.pair(e.prompt.upper() + " ", "other") for e in DATA.train[:6])
    data = Data(TASK, (*DATA.train, *twins))
    technique = FewShot(k=5, select=select)
    for example in data.train:
        prompts = [
            " ".join(prompt.lower().split()) for prompt, _ in shown(technique, TASK.ask(example), data)
        ]
        assert " ".join(example.prompt.lower().split()) not in prompts
        assert len(prompts) >= 4


@pytest.mark.parametrize("select", ["fixed", "balanced", "nearest"])
@pytest.mark.parametrize("k", [0, 1, 3, 16])
def test_k_examples_are_shown_to_a_new_request_and_to_a_training_example(select, k):
    technique = FewShot(k=k, select=select)
    assert len(shown(technique, TASK.ask(DATA.test[0]))) == k
    assert len(shown(technique, TASK.ask(DATA.train[0]))) == k


def test_no_more_examples_are_shown_than_there_are():
    assert len(shown(FewShot(k=5), TASK.ask(DATA.test[0]), Data(TASK, DATA.train[:2]))) == 2


def test_the_nearest_examples_are_shown_the_most_similar_last():
    pairs = [("a red bike", "1"), ("blue sky", "2"), ("my red bike is broken", "3"), ("tax form", "4")]
    data = Data(TASK, tuple(Example.pair(*pair) for pair in pairs))
    request = TASK.request([Message("user", "my red bike is stolen")])
    found = shown(FewShot(k=2), request, data)
    assert found == [("a red bike", "1"), ("my red bike is broken", "3")]


def test_a_user_who_asks_what_an_example_asks_gets_that_example():
    example = DATA.train[3]
    request = TASK.request([Message("user", example.prompt)])
    assert shown(FewShot(k=3), request)[-1] == (example.prompt, example.completion)


def test_balanced_examples_are_spread_over_the_labels_and_depend_on_the_seed():
    request = TASK.ask(DATA.test[0])
    labels = [label for _, label in shown(FewShot(k=6, select="balanced"), request)]
    assert sorted(labels) == sorted(TASK.labels * 2)
    draws = {tuple(shown(FewShot(k=6, select="balanced", seed=n), request)) for n in range(4)}
    assert len(draws) > 1
    assert shown(FewShot(k=6, select="balanced"), request) == shown(FewShot(k=6, select="balanced"), request)


def test_a_balanced_draw_is_of_all_examples_and_not_of_their_order():
    drawn = balanced(DATA.train, seed=1)
    assert sorted(e.id for e in drawn) == sorted(e.id for e in DATA.train)
    assert balanced(DATA.train[::-1], seed=1) == drawn
    for start in range(0, 12, 3):
        assert {e.completion for e in drawn[start : start + 3]} == set(TASK.labels)


def test_fixed_examples_are_the_first_and_the_same_for_every_request():
    found = shown(FewShot(k=2, select="fixed"), TASK.ask(DATA.test[0]))
    assert found == [(e.prompt, e.completion) for e in DATA.train[:2]]
    assert shown(FewShot(k=2, select="fixed"), TASK.ask(DATA.test[5])) == found


def test_the_examples_stand_before_the_last_user_message_of_a_conversation():
    turns = (Message("user", "hi"), Message("assistant", "hello"), Message("user", "my bike broke"))
    model = FewShot(k=1, select="fixed").apply(Blank(), DATA)
    messages = as_seen_by_weights(model, TASK.request(turns)).conversation
    assert [m.content for m in messages[1:3]] == ["hi", "hello"]
    assert messages[3].content == DATA.train[0].prompt
    assert messages[-1] == turns[-1]


def test_an_instruction_takes_the_place_of_the_tasks():
    model = FewShot(k=1, instruction="Sort the mail.").apply(Blank(), DATA)
    messages = as_seen_by_weights(model, TASK.ask(DATA.test[0])).messages
    assert [m.content for m in messages if m.role == "system"] == ["Sort the mail."]
    kept = as_seen_by_weights(FewShot(k=1).apply(Blank(), DATA), TASK.ask(DATA.test[0])).messages
    assert [m.content for m in kept if m.role == "system"] == [TASK.instruction]


def test_a_system_message_inside_an_example_is_not_shown():
    example = Example((Message("system", "secret"), Message("user", "q")), "a")
    model = FewShot(k=1, select="fixed").apply(Blank(), Data(TASK, (example,)))
    assert "secret" not in str(as_seen_by_weights(model, TASK.ask(DATA.test[0])).conversation)


def test_choices_and_evidence_pass_through():
    request = TASK.ask(DATA.test[0])
    seen = as_seen_by_weights(FewShot(k=1).apply(Blank(), DATA), request)
    assert (seen.choices, seen.sampling, seen.example_id) == (
        request.choices,
        request.sampling,
        request.example_id,
    )


@pytest.mark.parametrize("select", ["fixed", "nearest"])
def test_a_saved_metaprompt_shows_the_same_examples(select, tmp_path):
    rewrite = FewShot(k=3, select=select).apply(Blank(), DATA).rewrite
    loaded = load_metaprompt(tmp_path, rewrite.save(tmp_path))
    for example in (*DATA.test[:4], *DATA.train[:4]):
        assert loaded(TASK.ask(example)) == rewrite(TASK.ask(example))
    assert [e.id for e in loaded.pool] == [e.id for e in rewrite.pool]


@pytest.mark.parametrize("k", [-1, 17])
def test_k_out_of_range_is_refused(k):
    with pytest.raises(RecipeError, match=rf"few_shot: k is {k}; expected 0 to 16"):
        FewShot(k=k)


def test_an_unknown_way_to_select_is_refused():
    with pytest.raises(RecipeError, match=r"select is 'best'; expected one of nearest, mmr, hybrid"):
        FewShot(select="best")


@pytest.mark.parametrize("select", ["fixed", "balanced", "nearest"])
def test_without_training_examples_there_is_nothing_to_show(select):
    empty = Data(Task("answer", "x"), ())
    with pytest.raises(DataError, match=r"no training examples to show.*set k = 0 \(now 5\)"):
        FewShot(select=select).apply(Blank(), empty)
    request = Request((Message("user", "x"),))
    assert as_seen_by_weights(FewShot(k=0, select=select).apply(Blank(), empty), request) == request


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layout": "chatty"}, "layout is 'chatty'; expected one of chat, plain"),
        ({"calibrate": "magic"}, "calibrate is 'magic'; expected one of auto, none"),
        ({"k": 3, "core": 4}, "core is 4; expected 0 to k, which is 3"),
        ({"shortlist": 1}, "shortlist is 1; expected 2 labels or more, or 0"),
        ({"prompt_tokens": 0}, "prompt_tokens is 0; expected 1 or more"),
        ({"precision": 1.0}, "precision is 1.0; expected above 0 and below 1"),
        ({"budget_s": 0.0}, "the budget is 0.0 s and None tokens; expected more than 0"),
    ],
)
def test_a_setting_out_of_its_range_is_refused(settings, message):
    with pytest.raises(RecipeError, match=message):
        FewShot(**settings)


def test_answers_of_several_lines_are_not_laid_out_plainly():
    data = Data(Task("answer", "x"), (Example.pair("a", "one\ntwo"),))
    with pytest.raises(RecipeError, match=r'layout is "plain", where an answer ends with its line'):
        FewShot(layout="plain").apply(Blank(), data)


def test_a_file_says_true_or_false_for_tune():
    from tailorbird.recipe_file import Step

    assert Step("few_shot", {"tune": True}).build().tune
    with pytest.raises(RecipeError, match="tune is 'no'; expected true or false"):
        Step("few_shot", {"tune": "no"}).build()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": 0.9}, "precision 0.9, but the task is to answer freely"),
        (
            {"calibrate": "affine"},
            "calibrate is 'affine' and precision None, but the task is to answer freely",
        ),
        ({"shortlist": 5}, "shortlist and descriptions are for labels"),
        ({"descriptions": {"a": "b"}}, "shortlist and descriptions are for labels"),
    ],
)
def test_what_is_for_labels_is_never_ignored_where_answers_are_free(settings, message):
    data = Data(Task("answer", "x"), DATA.train, DATA.dev)
    with pytest.raises(DataError, match=message):
        FewShot(k=1, select="fixed", **settings).apply(Blank(), data)


def test_what_is_fitted_needs_dev_examples():
    with pytest.raises(DataError, match="there are no dev examples to fit them to"):
        FewShot(k=1, select="fixed", precision=0.9).apply(Blank(), Data(TASK, DATA.train))
