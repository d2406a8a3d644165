"""`tailor export`: a model in another server's format, proven by replay."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tailorbird.cli.options import AsJson, Examples, ModelArgument
from tailorbird.cli.output import kept_for_json, print_json, say, size_text
from tailorbird.cli.project import project_of

if TYPE_CHECKING:
    from tailorbird.workbench import Exported

NEXT = {
    "gguf": "ollama create NAME -f Modelfile",
    "safetensors": 'transformers.AutoModelForCausalLM.from_pretrained("{folder}")',
    "vllm": "{folder}/serve.sh",
}
"""What to do with each format."""


def export(
    context: typer.Context,
    model: ModelArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make.")],
    *,
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="gguf, safetensors or vllm.")],
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            help="gguf: f16, q8_0 (default) or q4; others: f32, bf16 or f16, default as measured.",
        ),
    ] = None,
    examples: Examples = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace an earlier export.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a model for Ollama, llama.cpp, transformers or vLLM, if it answers there as it does here."""
    workbench = project_of(context).workbench()
    with kept_for_json(as_json):
        exported = workbench.export(model, to, out, dtype=dtype, examples=examples, replace=replace)
    if as_json:
        print_json(_as_json(exported))
        return
    size = sum((exported.folder / name).stat().st_size for name in exported.files)
    say(f"Exported {model} as {exported.dtype} {exported.form} ({size_text(size)}) to {exported.folder}")
    say(_proof(exported))
    for note in exported.notes:
        say(note)
    say(f"Next: {_next(exported)}", dim=True)


def _proof(exported: Exported) -> str:
    replay = exported.replay
    sentence = (
        f"Replayed through {replay.engine}: {replay.alike} of {len(replay.answers)} examples answered alike"
    )
    if replay.largest_difference is not None:
        sentence += f", probabilities at most {replay.largest_difference:.4f} apart"
    return f"{sentence} (replay.json)."


def _next(exported: Exported) -> str:
    files = sorted((name for name in exported.files if name.endswith(".gguf")), reverse=True)
    if len(files) == 2:
        base, adapter = files
        return f"llama-server --model {base} --lora {adapter} --jinja"
    if exported.form == "gguf" and "Modelfile" not in exported.files:
        return f"llama-server --model {files[0]} --jinja"
    return NEXT[exported.form].format(folder=exported.folder)


def _as_json(exported: Exported) -> dict[str, Any]:
    replay = exported.replay.to_json()
    del replay["answers"]
    return {
        "folder": str(exported.folder),
        "format": exported.form,
        "dtype": exported.dtype,
        "files": list(exported.files),
        "replay": replay,
        "notes": list(exported.notes),
    }
