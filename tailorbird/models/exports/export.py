"""One model into one folder in another format: written, replayed, and only then put in place."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tailorbird.data.storage import atomic_folder, write_atomic
from tailorbird.errors import InputError, Unsupported
from tailorbird.models.exports import gguf_adapter, gguf_export, vllm_export
from tailorbird.models.exports.llama_process import ask_gguf, engine_name
from tailorbird.models.exports.merged import DTYPES, dtype_name, write_merged
from tailorbird.models.exports.modelfile import write_modelfile
from tailorbird.models.exports.plain_transformers import PlainFolder
from tailorbird.models.exports.replay import Replay, prompts_of, replay
from tailorbird.models.local import LocalWeights
from tailorbird.models.model import Model, rewrites_of, weights_of

if TYPE_CHECKING:
    from tailorbird.data.task import Task
    from tailorbird.models.chat_template import Prompt
    from tailorbird.records import Example, Request

Form = Literal["gguf", "safetensors", "vllm"]
FORMS: tuple[Form, ...] = ("gguf", "safetensors", "vllm")
DEFAULT_GGUF = "q8_0"
REPLAY = "replay.json"

_TWO_FILES = (
    "There are two files, since steps of four bits swallow what was trained: {base} is the model before fine-tuning, "
    "in four bits, and {adapter} what was trained, in 16 bits. The first alone answers as if never fine-tuned: load "
    "both, in llama.cpp with --lora."
)


@dataclass(frozen=True)
class Exported:
    """What was put in place: the folder, its files by name, what the replay found, and what else to know."""

    folder: Path
    form: Form
    dtype: str
    files: tuple[str, ...]
    replay: Replay
    notes: tuple[str, ...] = ()


def export_model(
    model: Model,
    task: Task,
    examples: Sequence[Example],
    out: Path,
    *,
    form: str,
    name: str,
    dtype: str | None = None,
    replace_old: bool = False,
) -> Exported:
    """Writes the weights beneath a model's wrappers so that others can serve them, and proves it by replay.

    Args:
        model: over local weights.
        task: makes requests of the examples.
        examples: what is replayed, the first `replay.MOST_EXAMPLES` of them.
        out: a folder; absent or empty, unless `replace_old`.
        form: one of `FORMS`.
        name: what the artefact is called.
        dtype: f16, q8_0 or q4 for GGUF, else f32, bf16 or f16; None takes q8_0, or what the engine holds.
        replace_old: puts it in the place of an earlier export.

    Raises:
        InputError: the format or precision is unknown, or the folder is in use.
        Unsupported: the model has no local weights, or cannot be written correctly in that format.
        ReplayMismatch: the artefact answers otherwise; nothing is put in place.
    """
    weights = _local(model)
    form, dtype = _form(form), _dtype(form, dtype, weights)
    _check_folder(out, replace_old=replace_old)
    if form == "gguf":
        gguf_export.check_exportable(weights)
        engine_name()
    prompts = prompts_of(weights, model, task, examples)
    notes = _wrapper_notes(model, task.ask(examples[0]))
    with atomic_folder(out, replace=True) as building:
        if form == "gguf":
            base, adapter = _gguf_files(weights, name, dtype)
            beside = building / adapter if adapter else None
            found = _gguf(weights, prompts, building / base, beside, dtype)
            text, note = write_modelfile(weights, model, task, base, adapter)
            notes += [_TWO_FILES.format(base=base, adapter=adapter), note] if adapter else [note]
            if text is not None:
                (building / "Modelfile").write_text(text, encoding="utf-8")
        elif form == "vllm":
            found = _vllm(weights, prompts, building, name, dtype, task)
        else:
            found = _safetensors(weights, prompts, building, dtype)
        if found.other_tokens:
            notes.append(
                f"{found.other_tokens} of {len(prompts)} prompts hold control tokens, or blanks at the edge of a "
                "message, which a plain chat template cuts into other tokens than Tailorbird does."
            )
        record = json.dumps(found.to_json(), indent=1, ensure_ascii=False)
        write_atomic(building / REPLAY, record.encode())
        files = tuple(sorted(p.relative_to(building).as_posix() for p in building.rglob("*") if p.is_file()))
    return Exported(out, form, dtype, files, found, tuple(notes))


def _local(model: Model) -> LocalWeights:
    weights = weights_of(model)
    if not isinstance(weights, LocalWeights):
        raise Unsupported(
            f"export: {model.name!r} has no weights on this machine (it is a {type(weights).__name__}). Only local "
            "weights can be exported: starter, a fine-tuned model, one trained from scratch."
        )
    return weights


def _form(form: str) -> Form:
    if form not in FORMS:
        raise InputError(f"export: --to {form!r} is no format. Expected one of {', '.join(FORMS)}.")
    return form


def _dtype(form: str, dtype: str | None, weights: LocalWeights) -> str:
    known = tuple(gguf_export.TYPES if form == "gguf" else DTYPES)
    chosen = dtype or (DEFAULT_GGUF if form == "gguf" else dtype_name(weights))
    if chosen not in known:
        raise InputError(
            f"export: --dtype {dtype!r} is none of {form}'s. Expected one of {', '.join(known)}."
        )
    return chosen


def _check_folder(out: Path, *, replace_old: bool) -> None:
    if out.suffix == ".gguf":
        raise InputError(
            f"{out}: OUT is a folder; the .gguf file is put in it. Give, for example, {out.with_suffix('')}."
        )
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"{out}: there is a file of that name. Give another folder.")
    if not any(out.iterdir()):
        return
    if not replace_old:
        raise InputError(
            f"{out}: the folder is not empty. Give another one, or --replace for an earlier export."
        )
    if not (out / REPLAY).is_file():
        raise InputError(
            f"{out}: it holds no {REPLAY}, so it is no earlier export and is not replaced. Give another."
        )


def _wrapper_notes(model: Model, request: Request) -> list[str]:
    """What of the model is not in the artefact, as a request like this one shows."""
    asking, knowing = list[str](), list[str]()
    for rewrite in rewrites_of(model):
        asked = rewrite(request)
        known = asked.prior != request.prior or asked.channel != request.channel
        if known:
            knowing.insert(0, rewrite.kind)
        # One that leaves this request as it is may change another.
        if not known or replace(asked, prior=request.prior, channel=request.channel) != request:
            asking.insert(0, rewrite.kind)
        request = asked
    notes: list[str] = []
    if asking:
        notes.append(
            f"The weights beneath {' and '.join(asking)} are exported, not what is put before each request. The replay "
            "asked with that in place; who asks the export must put it there too, or the scores that were measured "
            "don't hold."
        )
    if knowing:
        notes.append(
            f"What {' and '.join(knowing)} knows of the labels is not part of the weights: the export answers without "
            "it, and was replayed so. The scores that were measured with it don't hold."
        )
    return notes


def _safetensors(weights: LocalWeights, prompts: Sequence[Prompt], folder: Path, dtype: str) -> Replay:
    write_merged(weights, folder, dtype)
    return replay(weights, prompts, PlainFolder(folder).answer, engine=_transformers(), dtype=dtype)


def _gguf_files(weights: LocalWeights, name: str, dtype: str) -> tuple[str, str | None]:
    """Names of the file of weights and of the adapter's; None where it is merged, or there is none."""
    if dtype == "q4" and weights.adapter is not None:
        return f"{name}-base.gguf", f"{name}-adapter.gguf"
    return f"{name}.gguf", None


def _gguf(
    weights: LocalWeights, prompts: Sequence[Prompt], path: Path, adapter: Path | None, dtype: str
) -> Replay:
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        folder = Path(scratch)
        write_merged(replace(weights, adapter=None) if adapter else weights, folder, "f32")
        gguf_export.write_gguf(weights, folder, path, dtype, name=path.stem)
        if adapter:
            gguf_adapter.write_adapter(weights, folder, adapter, name=adapter.stem)
            # Four bits may change so much that a wrong scale would pass beneath them; 16 don't.
            fine = folder / "fine.gguf"
            gguf_export.write_gguf(weights, folder, fine, "f16", name=path.stem)
            _replay_gguf(weights, prompts, fine, adapter, "f16", "with the adapter on a base in 16 bits")
    return _replay_gguf(weights, prompts, path, adapter, dtype)


def _replay_gguf(  # noqa: PLR0917 - one call
    weights: LocalWeights,
    prompts: Sequence[Prompt],
    path: Path,
    adapter: Path | None,
    dtype: str,
    how: str = "",
) -> Replay:
    longest = max(len(p.ids) + p.request.sampling.max_tokens for p in prompts) + 64
    context = min(weights.engine.template.context, longest)
    return replay(
        weights,
        prompts,
        lambda asked: ask_gguf(path, context, asked, adapter),
        engine=f"{engine_name()} {how}".strip(),
        dtype=dtype,
    )


def _vllm(  # noqa: PLR0917 - one call
    weights: LocalWeights, prompts: Sequence[Prompt], folder: Path, name: str, dtype: str, task: Task
) -> Replay:
    rank = None
    if vllm_export.serves_adapter(weights):
        vllm_export.write_adapter(weights, folder / "adapter")
        rank = int(json.loads((folder / "adapter" / "adapter_config.json").read_text())["r"])
        plain = PlainFolder((weights.reference or "").removeprefix("hf:"), folder / "adapter")
        found = replay(weights, prompts, plain.answer, engine=_transformers(), dtype=dtype)
    else:
        found = _safetensors(weights, prompts, folder, dtype)
    command = vllm_export.serve_command(weights, name, dtype, rank)
    vllm_export.write_serving(folder, command, name, task.instruction)
    return found


def _transformers() -> str:
    import transformers

    return f"transformers {transformers.__version__}"
