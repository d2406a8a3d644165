"""A comparison's race, repeated on resamplings of what all arms answered: does it pick what the full run picks?

Nothing is asked or trained here. Arms that were measured whole, without a race, are drawn from: dev and test with
replacement, and the scores at which trainings were paused with the dev examples they belong to. The race is the
package's own (`behind`, `behind_in_training`, `blocks`).
"""

import collections
import json
import random

RESAMPLINGS = 100


def contender(run, metric, floors):
    from tailorbird.evaluation.verdict import Contender

    tokens = run.tokens
    fresh = (tokens["input"] - tokens["cached"] + tokens["output"]) / len(run.test.rows)
    compute = 0.0 if run.name in floors else fresh * run.num_parameters if run.num_parameters else None
    return Contender(run.name, run.dev.scores(metric), run.test.scores(metric), compute, run.name in floors)


def pauses_of(folder):
    """By arm and share of its steps, what its training scored on dev where it was paused, by example."""
    found = {}
    for path in sorted((folder / "paused").glob("*.json")):
        found[path.stem] = dict(
            sorted((share, scores) for share, scores in json.loads(path.read_text())["pauses"])
        )
    return found


def resampled_races(runs, metric, floors, task, dev_examples, pauses, seed):
    """How often the race picks the candidate and the arm of the full run, and at which part of its seconds."""
    from tailorbird.evaluation.verdict import decide

    dice = random.Random(seed)
    num_dev, num_test = len(dev_examples), len(next(iter(runs.values())).test.rows)
    # One cluster each where no document is shared.
    groups = next(iter(runs.values())).test.groups or list(range(num_test))
    same = collections.Counter()
    shares, answers = [], []
    for _ in range(RESAMPLINGS):
        dev = [dice.randrange(num_dev) for _ in range(num_dev)]
        test = [dice.randrange(num_test) for _ in range(num_test)]
        drawn = {name: redrawn(run, metric, floors, dev, test) for name, run in runs.items()}
        full = decide(list(drawn.values()), groups=[groups[i] for i in test], resamples=2000)
        drawn_dev = [dev_examples[i] for i in dev]
        ended = raced_by_steps(pauses, drawn_dev)
        kept, seen = raced({n: d for n, d in drawn.items() if n not in ended}, floors, drawn_dev, task)
        race = decide([drawn[name] for name in kept], groups=[groups[i] for i in test], resamples=2000)
        same["candidate"] += race.candidate == full.candidate
        same["arm"] += race.arm == full.arm
        within = drawn[race.candidate].score >= drawn[full.candidate].score - 0.03
        same["within 3 points"] += within
        spent = {n: sum(seconds_of(runs[n].dev, dev[: seen.get(n, 0)])) for n in runs}
        spent_test = {n: sum(seconds_of(runs[n].test, test)) if n in kept else 0.0 for n in runs}
        whole = {n: sum(seconds_of(runs[n].dev, dev)) + sum(seconds_of(runs[n].test, test)) for n in runs}
        made = sum(run.train_s * ended.get(n, 1.0) for n, run in runs.items())
        made_whole = sum(run.train_s for run in runs.values())
        asked = sum(spent.values()) + sum(spent_test.values())
        answers.append(asked / sum(whole.values()))
        shares.append((asked + made) / (sum(whole.values()) + made_whole))
    return {
        "resamplings": RESAMPLINGS,
        "same_candidate": same["candidate"],
        "same_arm": same["arm"],
        "candidate_within_3_points": same["within 3 points"],
        "share_of_answer_seconds": sum(answers) / len(answers),
        "share_of_all_seconds": sum(shares) / len(shares),
    }


def seconds_of(evaluation, indices):
    return [evaluation.rows[i].completion.seconds for i in indices]


def redrawn(run, metric, floors, dev, test):
    from dataclasses import replace

    whole = contender(run, metric, floors)
    return replace(whole, dev=[whole.dev[i] for i in dev], test=[whole.test[i] for i in test])


def groups_of(dev):
    """The document of every example, where some share one."""
    named = [example.document for example in dev]
    if len({name for name in named if name}) < sum(name is not None for name in named):
        return [name or f"example {index}" for index, name in enumerate(named)]
    return None


def raced_by_steps(pauses, dev):
    """The share of its steps after which an arm's training stops, for those where it does."""
    from dataclasses import replace

    from tailorbird.evaluation.arms import Begun
    from tailorbird.evaluation.contest import TRAINED as SHARES
    from tailorbird.evaluation.racing import behind_in_training

    # Each draw of an example counts, so each has a name of its own.
    named = [replace(example, id=f"{example.id} {place}") for place, example in enumerate(dev)]
    ended = {}
    for share in SHARES:
        begun = {}
        for arm, scores in pauses.items():
            reached = [done for done in scores if done >= share]
            if reached and arm not in ended:
                found = scores[min(reached)]
                drawn = {
                    new.id: found[old.id] for new, old in zip(named, dev, strict=True) if old.id in found
                }
                begun[arm] = Begun(min(reached), drawn)
        ended |= dict.fromkeys(behind_in_training(begun, named, groups=groups_of(dev)), share)
    return ended


def raced(drawn, floors, dev, task):
    """Which arms are left after the race, and how many dev examples each answered."""
    from tailorbird.evaluation.racing import behind, blocks

    groups = groups_of(dev)
    racing = [name for name in drawn if name not in floors]
    scores = {name: dict(enumerate(drawn[name].dev)) for name in drawn if name in floors}
    seen, answered = {name: len(dev) for name in scores}, []
    for rung in blocks(dev, task):
        answered += rung
        for name in racing:
            scores[name] = {i: drawn[name].dev[i] for i in answered}
            seen[name] = len(answered)
        stopped = behind(
            {n: scores[n] for n in [*floors & scores.keys(), *racing]},
            racing,
            num_dev=len(dev),
            groups=groups,
        )
        racing = [name for name in racing if name not in stopped]
    return [*(name for name in drawn if name in floors), *racing], seen
