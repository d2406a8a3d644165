"""Peers that run beside us: environments with their own packages, and of ours what they don't bring."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "bench"
DATASETS_NEED = (
    "pyarrow",
    "pandas",
    "multiprocess",
    "xxhash",
    "dill",
    "python-dateutil",
    "pytz",
    "tzdata",
    "six",
)
PEERS = {
    "trl": ("trl==1.16.0", "datasets==5.2.0", *DATASETS_NEED),
    # It asks for older versions than ours of all that it is built on, but for torch.
    "llamafactory": (
        "llamafactory==0.9.5",
        "transformers==5.6.0",
        "tokenizers==0.22.2",
        "huggingface_hub<2",
        "peft==0.18.1",
        "trl==0.24.0",
        "accelerate==1.11.0",
        "datasets==4.0.0",
        "fsspec==2025.3.0",
        "omegaconf",
        "antlr4-python3-runtime==4.9.3",
        "einops",
        "requests",
        "charset_normalizer",
        "urllib3",
        *DATASETS_NEED,
    ),
}
PEERS |= {"lm_eval": ("lm_eval==0.4.13", "accelerate"), "dspy": ("dspy==3.4.1",)}
PEERS |= {"splitters": ("semantic-text-splitter==0.33.1", "chonkie==1.7.0")}
# Torch of their own, for they ask for another transformers than ours. Where an index offers torch with CUDA first,
# install it for the processor beforehand.
PEERS["knowledge_peers"] = (
    "torch==2.13.0",
    "llama-index-core==0.14.25",
    "llama-index-embeddings-huggingface==0.8.0",
    "langchain-classic==1.0.8",
    "langchain-community==0.4.2",
    "langchain-chroma==1.1.0",
    "langchain-huggingface==1.2.3",
    "langchain-text-splitters==1.1.3",
    "sentence-transformers==5.7.0",
    "transformers==4.57.6",
)
WITH_ALL_THEY_NEED = ("lm_eval", "dspy", "splitters", "knowledge_peers")
"""Peers that may install what they ask for, which is torch only where it is named."""
STAND_INS = {"llamafactory": ("torchaudio",)}
"""Modules that a peer imports and does not use for text, whose libraries need another torch."""


def environment(name):
    """A Python in which the peer of this name can be imported; made at the first call."""
    folder = WORK / name
    python, complete = folder / "bin" / "python", folder / "complete"
    if complete.exists():
        return str(python)
    venv.create(folder, with_pip=False, clear=True)
    place = next(folder.glob("lib/python*/site-packages"))
    ours = next(Path(sys.prefix).glob("lib/python*/site-packages"))
    (place / "ours.pth").write_text(f"{ours}\n", "utf-8")  # comes after the peer's own packages
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(place)]
    install += [] if name in WITH_ALL_THEY_NEED else ["--no-deps"]
    subprocess.run([*install, *PEERS[name]], check=True)
    for module in STAND_INS.get(name, ()):
        (place / f"{module}.py").write_text('"""Stands in for what text does not need."""\n', "utf-8")
    complete.touch()
    return str(python)


def result_of(python, script, job):
    """What a script of this folder, run with a job's file, prints after RESULT as JSON.

    Raises:
        RuntimeError: it ended without a result.
    """
    done = subprocess.run(
        [python, str(ROOT / "benchmarks" / script), str(job)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        check=False,
    )
    line = next((text for text in done.stdout.splitlines() if text.startswith("RESULT ")), None)
    if line is None:
        raise RuntimeError(f"{job} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(line.removeprefix("RESULT "))
