"""A judge behind a real endpoint: from the call to the comparison's folder, with its failures."""

import json
import threading

import pytest
from endpoint import Endpoint, said

import tailorbird
from tailorbird.errors import InputError, NotFound, RecipeError
from tailorbird.wanted import JudgeChoice
from tailorbird.workbench import Workbench

ROOM = "The answer stands on page {n} of the handbook"


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    rows = [
        {"prompt": f"Where does topic number {n} stand?", "completion": ROOM.format(n=n)} for n in range(60)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def compare(project, judge, **rest):
    arms = ["majority", "blank"]
    return tailorbird.compare(project / "rows.jsonl", arms=arms, judge=judge, project=project, **rest)


class Reading:
    """An endpoint that judges by the reference and names its choice as the schema asks; broken after some answers."""

    def __init__(self, until=10_000):
        self.until, self.answered, self.turn = until, 0, threading.Lock()

    def __call__(self, body):
        with self.turn:
            if self.answered >= self.until:
                return 400, {"error": {"message": "out of credit"}}
            self.answered += 1
        quoted = json.loads(body["messages"][-1]["content"].rpartition("\n\n")[0])
        words = [set(quoted[name].split()) for name in ("answer_1", "answer_2", "reference")]
        one, other = (len(found & words[2]) for found in words[:2])
        choice = "Answer 1" if one > other else "Answer 2" if other > one else "Equal"
        return 200, said(json.dumps({"label": choice}))


def test_an_endpoint_judges_and_the_verdict_is_the_same_without_it(project):
    endpoint = Endpoint(Reading())
    with endpoint.running() as url:
        found = compare(project, f"{url}#wise", judge_limit=8)
    without = compare(project, None)
    judge = found.judge
    assert judge.model == f"{url}#wise"
    assert judge.arm == found.verdict.arm
    [match] = judge.matches
    assert (match.opponent, match.wins, match.ties, match.losses) == ("blank", 8, 0, 0)
    assert (judge.failed, judge.consistent, judge.unreadable) == ("", 1, 0)
    assert found.verdict.sentence == without.verdict.sentence
    assert without.judge is None
    assert {body["model"] for body in endpoint.bodies} == {"wise"}
    named = endpoint.bodies[0]["response_format"]["json_schema"]["schema"]["properties"]["label"]["enum"]
    assert named == ["Answer 1", "Answer 2", "Equal"]
    assert all("Authorization" not in headers for headers in endpoint.headers)


def test_a_judge_that_breaks_off_leaves_the_result_and_is_asked_for_the_rest_only(project):
    broken, whole = Endpoint(Reading(until=8)), Endpoint(Reading())
    with broken.running() as url:
        # The same endpoint, out of credit first and then paid for.
        failed = compare(project, f"{url}#wise")
        assert "out of credit" in failed.judge.failed
        assert failed.verdict.arm is not None
        answered = broken.respond.answered
        broken.respond = Reading()
        resumed = compare(project, f"{url}#wise")
        once_more = broken.respond.answered
        again = compare(project, f"{url}#wise")
        assert broken.respond.answered == once_more
    with whole.running() as url:
        undisturbed = compare(project, f"{url}#wise")
    assert answered == 8
    assert 0 < once_more < whole.respond.answered
    assert resumed.judge == again.judge
    assert resumed.judge.matches == undisturbed.judge.matches
    [run] = (project / ".tailorbird" / "runs").iterdir()
    kept = json.loads((run / "comparison.json").read_text())["judge"]
    assert kept["matches"][0]["opponent"] == resumed.judge.matches[0].opponent
    assert "A judge&#x27;s opinion" in (run / "report.html").read_text(encoding="utf-8")


def test_a_judge_that_is_not_there_is_told_before_anything_runs(project):
    told = []
    with pytest.raises(NotFound, match=r"model 'wiseman': no saved model"):
        compare(project, "wiseman", on_event=told.append)
    with pytest.raises(InputError, match=r"an endpoint needs the model's id after '#'"):
        compare(project, "http://127.0.0.1:1/v1", on_event=told.append)
    assert told == []


def test_a_recipe_file_names_a_judge_and_a_flag_another(project):
    far = "http://127.0.0.1:1/v1#{}".format
    (project / "tailor.toml").write_text(
        f'examples = "rows.jsonl"\narms = ["majority"]\njudge = "{far("wise")}"\njudge_limit = 7\njudge_key_env = "K"\n'
    )
    comparisons = Workbench(project).comparisons
    assert comparisons.plan().judge == JudgeChoice(far("wise"), 7, "K")
    assert comparisons.plan(judge=JudgeChoice(far("other"))).judge == JudgeChoice(far("other"), 40)
    (project / "tailor.toml").write_text('examples = "rows.jsonl"\njudge = "starter"\njudge_limit = 0\n')
    with pytest.raises(RecipeError, match="judge_limit is 0; expected 1 or more test examples"):
        comparisons.plan()
