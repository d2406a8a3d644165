"""What a folder needs so that vLLM serves it as it was measured: the command, and how to check it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tailorbird.models.local import LocalWeights

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM takes for --max-lora-rank."""


def serves_adapter(weights: LocalWeights) -> bool:
    """Whether the base is on the hub, so that the adapter alone is enough."""
    return weights.adapter is not None and (weights.reference or "").startswith("hf:")


def write_adapter(weights: LocalWeights, folder: Path) -> None:
    """The adapter in PEFT's format, which names its base by its hub id, and the tokenizer beside it."""
    assert weights.adapter is not None
    assert weights.reference is not None
    folder.mkdir()
    weights.engine.save_adapter(weights.adapter, folder)
    weights.engine.tokenizer.save_pretrained(folder)
    config = folder / "adapter_config.json"
    named = {
        **json.loads(config.read_text()),
        "base_model_name_or_path": weights.reference.removeprefix("hf:"),
    }
    config.write_text(json.dumps(named, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def serve_command(weights: LocalWeights, name: str, dtype: str, rank: int | None) -> list[str]:
    """The command, run inside the folder; with a rank the adapter is served on the hub's base."""
    kept = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}[dtype]
    common = [
        "--max-model-len",
        str(weights.engine.template.context),
        "--dtype",
        kept,
        "--override-generation-config",
        json.dumps({"temperature": 0.0}),
    ]
    if rank is None:
        return ["vllm", "serve", ".", "--served-model-name", name, *common]
    base = (weights.reference or "").removeprefix("hf:")
    most = str(next((r for r in RANKS if r >= rank), rank))
    lora = ["--enable-lora", "--lora-modules", f"{name}=./adapter", "--max-lora-rank", most]
    return ["vllm", "serve", base, "--served-model-name", f"{name}-base", *lora, *common]


def write_serving(folder: Path, command: list[str], name: str, instruction: str) -> None:
    """serve.sh with the command, and README.md with a request to check it by."""
    line = shlex.join(command)
    script = folder / "serve.sh"
    script.write_text(f'#!/bin/sh\ncd "$(dirname "$0")" && exec {line} "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    turns = [{"role": "system", "content": instruction}] if instruction else []
    body = json.dumps(
        {"model": name, "messages": [*turns, {"role": "user", "content": "…"}]}, ensure_ascii=False
    )
    (folder / "README.md").write_text(_README.format(line=line, body=shlex.quote(body)), encoding="utf-8")


_README = """\
# Serving this folder with vLLM

```bash
{line}
```

`./serve.sh` runs the same command, and takes further options such as `--port 8000`.

To check it, ask it what `replay.json` holds: each entry of `answers` has the question and the answer that
the model gave where it was made. The system text is the one that it was measured with.

```bash
curl --silent http://127.0.0.1:8000/v1/chat/completions -H "Content-Type: application/json" -d {body}
```

For a closed set of labels add `"structured_outputs": {{"choice": ["…", "…"]}}` to the request: the answer is
then one of them.
"""
