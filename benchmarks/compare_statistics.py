"""Do the comparison's intervals and verdicts keep what they promise? Simulated scores with known truth.

    python benchmarks/compare_statistics.py [--sets 3000] [--verdicts 2000] [--seed 0] [--write]

Coverage: how often a 95 % interval holds the true mean or the true difference, over `--sets` test sets for
each kind of scores, size and truth. Verdicts: `decide()` itself, over `--verdicts` pairs of dev and test
sets: how often it names a winner among equal arms, finds a true gap, or calls a tie what is none. Beside
them the naive way: every example counts as independent, nothing is corrected, and the best arm is chosen
where it is tested.

Writes benchmarks/results/compare_statistics.json and .md with --write. One thread; ten to twenty minutes.
"""

import argparse
import datetime as dt
import json
import time
from pathlib import Path

import numpy as np
from machine import machine, sentence
from simulated_scores import documents, simulate, true_mean

from tailorbird.evaluation.bootstrap import bootstrap_mean_interval
from tailorbird.evaluation.statistics import paired_interval, score_interval
from tailorbird.evaluation.verdict import Contender, decide

RESULTS = Path(__file__).resolve().parent / "results"
COMMAND = "python benchmarks/compare_statistics.py --write"
SIZES = (20, 50, 100, 300, 1000)
MEANS = (0.5, 0.9, 0.97)
PAIRS = ((0.5, 0.5), (0.9, 0.9), (0.97, 0.97), (0.9, 0.85), (0.97, 0.9))
KINDS = (
    ("right_wrong", False),
    ("token_f1", False),
    ("smooth", False),
    ("right_wrong", True),
    ("token_f1", True),
    ("smooth", True),
)
BOOTSTRAP_SIZES, BOOTSTRAP_SETS = (50, 100), 400
FLIPS = 1000
"""Of the permutation test in a verdict, where the product takes 10,000: ten times as many verdicts."""
Z = 1.959964


# -- coverage ---------------------------------------------------------------------------------------


def coverage(rng, num_sets, kind, grouped, size, means):
    """One row: how often the interval of a mean, or of a difference of two, holds the truth."""
    groups = documents(size) if grouped else None
    arms = simulate(rng, kind, means, num_sets, size, groups)
    truth = true_mean(kind, means[0]) - (true_mean(kind, means[1]) if len(means) == 2 else 0.0)
    found = [interval_of([arm[i] for arm in arms], groups) for i in range(num_sets)]
    values = arms[0] - arms[1] if len(arms) == 2 else arms[0]
    half = Z * values.std(axis=1, ddof=1) / np.sqrt(size)
    row = {
        "of": "difference" if len(means) == 2 else "score",
        "kind": kind,
        "grouped": grouped,
        "size": size,
        "documents": int(groups.max()) + 1 if grouped else None,
        "means": list(means),
        "coverage": share(holds(i.low, i.high, truth) for i in found),
        "width": round(float(np.mean([i.high - i.low for i in found])), 4),
        "naive": round(float(np.mean(np.abs(values.mean(axis=1) - truth) <= half + 1e-12)), 4),
    }
    if size in BOOTSTRAP_SIZES and (grouped or kind != "right_wrong"):
        drawn = (
            bootstrap_mean_interval(v, groups=groups, resamples=1000, seed=i)
            for i, v in enumerate(values[:BOOTSTRAP_SETS])
        )
        row["bca"] = share(holds(i.low, i.high, truth) for i in drawn)
    return row


def interval_of(scores, groups):
    return (
        paired_interval(*scores, groups=groups)
        if len(scores) == 2
        else score_interval(*scores, groups=groups)
    )


def holds(low, high, truth):
    return low - 1e-12 <= truth <= high + 1e-12


def share(hits):
    counted = list(hits)
    return round(sum(counted) / len(counted), 4)


# -- verdicts ---------------------------------------------------------------------------------------


def verdicts(rng, num_sets, kind, grouped, size, means):
    """One row: what `decide` says of arms with these true means, dev and test of this size."""
    groups = documents(size) if grouped else None
    names = [f"arm_{number}" for number in range(len(means))]
    dev, test = (simulate(rng, kind, means, num_sets, size, groups) for _ in range(2))
    best = names[int(np.argmax(means))]
    kinds, right, wrong, naive = {"winner": 0, "tie": 0, "undecided": 0}, 0, 0, 0
    for number in range(num_sets):
        arms = [
            Contender(name, dev[i][number].tolist(), test[i][number].tolist(), float(i))
            for i, name in enumerate(names)
        ]
        verdict = decide(arms, groups=groups, seed=number, resamples=FLIPS)
        kinds[verdict.kind] += 1
        won = verdict.kind == "winner"
        right += won and verdict.arm == best and max(means) > min(means)
        wrong += won and (verdict.arm != best or max(means) == min(means))
        naive += naively_better([scores[number] for scores in test])
    return {
        "kind": kind,
        "grouped": grouped,
        "size": size,
        "arms": len(means),
        "gap": round(max(means) - min(means), 4),
        "right_winner": round(right / num_sets, 4),
        "false_winner": round(wrong / num_sets, 4),
        "tie": round(kinds["tie"] / num_sets, 4),
        "naive_claim": round(naive / num_sets, 4),
    }


def naively_better(scores):
    """The best arm on test, tested there against the first of the others, as if examples were independent."""
    means = [s.mean() for s in scores]
    best = int(np.argmax(means))
    other = 1 if best == 0 else 0
    diffs = scores[best] - scores[other]
    error = diffs.std(ddof=1) / np.sqrt(len(diffs))
    return bool(error > 0 and diffs.mean() / error > Z)


def plan_of_verdicts():
    equal = [
        (kind, grouped, 100, (0.8,) * arms)
        for kind, grouped in (KINDS[0], KINDS[1], KINDS[3], KINDS[4])
        for arms in (2, 4, 8, 12)
    ]
    gaps = [
        (KINDS[0][0], grouped, size, (0.8 + gap, 0.8, 0.8, 0.8))
        for grouped in (False, True)
        for gap in (0.05, 0.10)
        for size in (100, 300, 1000)
    ]
    ties = [
        (KINDS[0][0], grouped, size, (0.8 + gap, 0.8))
        for grouped in (False, True)
        for gap in (0.06, 0.0)
        for size in (300, 1000)
    ]
    return [
        *(("equal", *row) for row in equal),
        *(("gap", *row) for row in gaps),
        *(("tie", *row) for row in ties),
    ]


# -- the page ---------------------------------------------------------------------------------------


def percent(value):
    return "" if value is None else f"{100 * value:.1f}"


def what(row):
    return row["kind"].replace("_", " ").replace("right wrong", "right/wrong").replace("token f1", "token F1")


def coverage_tables(rows):
    """One table a size's columns: coverage of each kind and truth."""
    for of in ("score", "difference"):
        yield f"| 95 % interval of a {of} | true | " + " | ".join(f"n = {size}" for size in SIZES) + " |"
        yield "|---|---|" + "---|" * len(SIZES)
        keys = list(
            dict.fromkeys((r["kind"], r["grouped"], tuple(r["means"])) for r in rows if r["of"] == of)
        )
        for kind, grouped, means in keys:
            mine = [
                r
                for r in rows
                if (r["of"], r["kind"], r["grouped"], tuple(r["means"])) == (of, kind, grouped, means)
            ]
            cells = " | ".join(_cell(r) for r in mine)
            name = what(mine[0]) + (", by document" if grouped else "")
            yield f"| {name} | {' − '.join(f'{m:g}' for m in means)} | {cells} |"
        yield ""


def _cell(row):
    beside = f" ({percent(row['naive'])})" if row["grouped"] else ""
    return percent(row["coverage"]) + beside


def bootstrap_lines(rows):
    drawn = [r for r in rows if "bca" in r]
    for grouped in (False, True):
        mine = [r for r in drawn if r["grouped"] == grouped]
        low, ours = min(r["bca"] for r in mine), min(r["coverage"] for r in mine)
        missed = sum(r["bca"] < 0.93 for r in mine)
        yield (
            f"- {'By document' if grouped else 'Independent examples'}, n of 50 and 100: the BCa bootstrap held the "
            f"truth in fewer than 93 % of the sets in {missed} of {len(mine)} rows, {percent(low)} % at worst; ours "
            f"{percent(ours)} % at worst."
        )


def _where(rows):
    """How many of the rows there are at each size, and how many of them by document."""
    counts = [(size, [r for r in rows if r["size"] == size]) for size in SIZES]
    told = [
        f"{len(r)} at {size}, {sum(x['grouped'] for x in r)} of them by document" for size, r in counts if r
    ]
    return "; ".join(told) or "none"


def report(found, facts, given, seconds):
    rows = found["coverage"]
    outside = [r for r in rows if r["size"] >= 50 and r["coverage"] < 0.93]
    over = [r for r in rows if r["size"] >= 50 and r["coverage"] > 0.97]
    large = [r for r in rows if r["size"] >= 50]
    equal = [r for r in found["verdicts"] if r["part"] == "equal"]
    lines = [
        "# The comparison's statistics, on scores with known truth",
        "",
        (
            f"`{COMMAND}`, {dt.datetime.now(tz=dt.UTC).date()}, {seconds:.0f} s. {given.sets:,} test sets a row of "
            f"coverage, {given.verdicts:,} dev and test sets a row of verdicts. {sentence(facts)}"
        ),
        "",
        (
            "Examples are hard or easy for all arms alike, and documents (3 to 10 examples each) have a difficulty "
            "of their own, partly the same for all arms. Coverage in %; in brackets what counting every example as "
            "independent (mean ± 1.96 standard errors) gives. 20 examples are 3 documents, 50 are "
            f"{documents(50).max() + 1}, 100 are {documents(100).max() + 1}, 300 are {documents(300).max() + 1}, "
            f"1,000 are {documents(1000).max() + 1}."
        ),
        "",
        (
            f"At 50 examples or more {len(large) - len(outside) - len(over)} of {len(large)} rows lie between 93 and "
            f"97 %, {len(over)} above (wider than need be: {_where(over)}), {len(outside)} below."
        ),
        "",
        *coverage_tables(rows),
        *bootstrap_lines(rows),
        "",
        (
            "## Winners among equal arms (true score .8, 100 examples): "
            f"{percent(max(r['false_winner'] for r in equal))} % at most"
        ),
        "",
        '| scores | arms | "winner", % | naive claim, % |',
        "|---|---|---|---|",
        *(
            f"| {what(r)}{', by document' if r['grouped'] else ''} | {r['arms']} | {percent(r['false_winner'])} | "
            f"{percent(r['naive_claim'])} |"
            for r in equal
        ),
        "",
        (
            "A naive claim: the arm that is best on test is tested there against another, examples taken as "
            "independent, nothing corrected."
        ),
        "",
        "## True gaps found (four arms, one better; right/wrong)",
        "",
        "| gap, points | examples | winner found, % | by document, % | wrong winner, % |",
        "|---|---|---|---|---|",
        *_gap_rows(found["verdicts"]),
        "",
        "## Ties (two arms, margin 3 points; right/wrong)",
        "",
        '| true gap, points | examples | "tie", % | by document, % |',
        "|---|---|---|---|",
        *_tie_rows(found["verdicts"]),
        "",
    ]
    return "\n".join(lines)


def _gap_rows(rows):
    mine = [r for r in rows if r["part"] == "gap"]
    for alone in (r for r in mine if not r["grouped"]):
        grouped = _grouped(mine, alone)
        wrong = max(alone["false_winner"], grouped["false_winner"])
        yield (
            f"| {100 * alone['gap']:.0f} | {alone['size']} | {percent(alone['right_winner'])} | "
            f"{percent(grouped['right_winner'])} | {percent(wrong)} |"
        )


def _tie_rows(rows):
    mine = [r for r in rows if r["part"] == "tie"]
    for alone in (r for r in mine if not r["grouped"]):
        grouped = _grouped(mine, alone)
        yield f"| {100 * alone['gap']:.0f} | {alone['size']} | {percent(alone['tie'])} | {percent(grouped['tie'])} |"


def _grouped(rows, alone):
    return next(r for r in rows if r["grouped"] and (r["gap"], r["size"]) == (alone["gap"], alone["size"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sets", type=int, default=3000, help="test sets for each row of coverage")
    parser.add_argument(
        "--verdicts", type=int, default=2000, help="dev and test sets for each row of verdicts"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="write the results to benchmarks/results")
    given = parser.parse_args()
    began, rng = time.perf_counter(), np.random.default_rng(given.seed)
    rows = []
    for kind, grouped in KINDS:
        for means in [*((m,) for m in MEANS), *PAIRS]:
            rows += [coverage(rng, given.sets, kind, grouped, size, means) for size in SIZES]
            shown = ", ".join(
                f"{r['size']}: {percent(r['coverage'])} ({percent(r['naive'])})" for r in rows[-len(SIZES) :]
            )
            print(kind, "by document" if grouped else "", means, shown, flush=True)
    decided = []
    for part, *settings in plan_of_verdicts():
        decided.append({"part": part, **verdicts(rng, given.verdicts, *settings)})
        print(decided[-1], flush=True)
    found, facts = {"coverage": rows, "verdicts": decided}, machine()
    seconds = time.perf_counter() - began
    text = report(found, facts, given, seconds)
    print(text)
    if given.write:
        plain = {"command": COMMAND, "sets": given.sets, "verdicts": given.verdicts, "seed": given.seed}
        kept = {**plain, "seconds": round(seconds), "machine": facts, "rows": found}
        (RESULTS / "compare_statistics.json").write_text(json.dumps(kept, indent=1))
        (RESULTS / "compare_statistics.md").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
