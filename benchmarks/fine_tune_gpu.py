"""Fine-tuning on one CUDA device beside TRL: the same model, data, learning rate and steps, in one process.

    python benchmarks/fine_tune_gpu.py --rows FOLDER [--tokenizer FOLDER] [--only SHAPE/CASE/CONTENDER,…] [--within S]

Models have SmolLM2-135M's shape and a 1.7-billion one's (SmolLM2-1.7B's), with random weights: what is measured is
speed and memory. Cases, each with LoRA of rank 16 on all linear layers and batches of 16:

short        Banking77's published 10-shot split: one message, one label
metaprompt   the same messages, each behind a metaprompt of 5 fixed examples
questions    questions about paragraphs (SquadShifts new_wiki): little in common, prompts of some 200 tokens

`--write-rows` makes the rows in FOLDER, on any machine that has the public data sets; the measuring one needs trl,
datasets and, for its best settings, liger-kernel. Contenders take turns, each with a model of its own:

tailorbird       FineTune as it is; seconds include tokenizing, planning, compiling and recording
trl_default      SFTTrainer as it comes: float32 weights, bfloat16 products, gradient checkpointing
trl_tuned        bfloat16 weights, no checkpointing, batches of like length, TF32, fused AdamW
trl_tuned_liger  the same with Liger's kernels

TRL can spare its padding too, with the flash-attn package, which has to be compiled: it is not among these.

A step's time is the median of the second half of the steps. Tokens are those of the rows, padding not counted; the
share of peak is what those tokens' products with frozen weights need (4 operations a weight and token), over the
time and over what this device does in products of 8,192 x 8,192 matrices, measured in the same process.
Adds a run to benchmarks/results/fine_tune_gpu.json and .md, which keep them all.
"""

import argparse
import datetime as dt
import gc
import json
import statistics
import sys
import time
from pathlib import Path

import torch

BATCH, RANK, RATE = 16, 16, 1e-3
SHAPES = {
    "135M": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9}
    | {"num_key_value_heads": 3},
    "1.7B": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 24,
        "num_attention_heads": 32,
    }
    | {"num_key_value_heads": 32},
}
STEPS = {"135M": 40, "1.7B": 24}
CONTENDERS = ("tailorbird", "trl_default", "trl_tuned", "trl_tuned_liger")
WITHOUT = "TRL ran without the flash-attn package, with which it spares padding."
PLAN = (
    "135M/short/tailorbird",
    "135M/short/trl_tuned_liger",
    "135M/short/trl_tuned",
    "1.7B/questions/tailorbird",
    "1.7B/questions/trl_tuned_liger",
    "1.7B/questions/trl_tuned",
    "135M/metaprompt/tailorbird",
    "135M/metaprompt/trl_tuned_liger",
    "1.7B/metaprompt/tailorbird",
    "1.7B/metaprompt/trl_tuned_liger",
    "1.7B/short/tailorbird",
    "1.7B/short/trl_tuned_liger",
    "135M/short/trl_default",
    "1.7B/questions/trl_default",
)
"""What is measured, the most telling first: with `--within` the rest is left out when time is up."""


def model_of(shape, tokenizer, dtype):
    """Random weights on the device, the same for everybody."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=8192,
        rope_theta=100_000,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **SHAPES[shape],
    )
    torch.manual_seed(0)
    with torch.device("cuda"):
        return LlamaForCausalLM(config).to(dtype)


def rows_of(folder, case, steps):
    rows = [json.loads(line) for line in (folder / f"{case}.jsonl").read_text("utf-8").splitlines()]
    return [rows[n % len(rows)] for n in range(steps * BATCH)]


def tailorbird(shape, tokenizer, rows, told):
    from tailorbird.data.task import Data, Task
    from tailorbird.models.engine import Engine
    from tailorbird.models.local import LocalWeights
    from tailorbird.records import Example, Message
    from tailorbird.techniques.fine_tune import FineTune

    weights = LocalWeights("random", Engine(model_of(shape, tokenizer, torch.bfloat16), tokenizer))
    examples = tuple(
        Example(tuple(Message(**m) for m in row["messages"]), row["completion"], line=n)
        for n, row in enumerate(rows, 1)
    )

    def on_step(report):
        told["times"].append(time.perf_counter())
        told["losses"].append(report.loss)
        told["tokens"], told["shared"] = report.tokens, report.shared_tokens

    technique = FineTune(rank=RANK, learning_rate=RATE, epochs=1, batch_size=BATCH, on_step=on_step)
    began = time.perf_counter()
    tuned = technique.apply(weights, Data(Task("answer", ""), examples, ()))
    torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    del tuned, weights
    return seconds


def trl(shape, tokenizer, rows, told, *, dtype=torch.float32, **settings):
    import tempfile

    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class Times(TrainerCallback):
        def on_step_end(self, *_, **__):
            torch.cuda.synchronize()
            told["times"].append(time.perf_counter())

    rows = [
        {"prompt": row["messages"], "completion": [{"role": "assistant", "content": row["completion"]}]}
        for row in rows
    ]
    steps = len(rows) // BATCH
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder,
            per_device_train_batch_size=BATCH,
            max_steps=steps,
            learning_rate=RATE,
            lr_scheduler_type="cosine",
            warmup_steps=max(1, round(0.06 * steps)),
            logging_steps=1,
            max_length=None,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            **settings,
        )
        lora = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
        trainer = SFTTrainer(
            model=model_of(shape, tokenizer, dtype),
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=lora,
            callbacks=[Times()],
        )
        began = time.perf_counter()
        trainer.train()
        torch.cuda.synchronize()
        seconds = time.perf_counter() - began
    told["losses"] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return seconds


TUNED = {
    "dtype": torch.bfloat16,
    "gradient_checkpointing": False,
    "train_sampling_strategy": "group_by_length",
    "optim": "adamw_torch_fused",
    "tf32": True,
}


def run(contender, shape, tokenizer, rows):
    """What one contender's training took."""
    told = {"times": [], "losses": [], "tokens": None, "shared": None}
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    if contender == "tailorbird":
        seconds = tailorbird(shape, tokenizer, rows, told)
    elif contender == "trl_default":
        seconds = trl(shape, tokenizer, rows, told)
    else:
        seconds = trl(shape, tokenizer, rows, told, use_liger_kernel=contender.endswith("liger"), **TUNED)
    took = [after - before for before, after in zip(told["times"], told["times"][1:], strict=False)]
    return {
        "seconds": round(seconds, 2),
        "step_ms": round(1000 * statistics.median(took[len(took) // 2 :]), 2),
        "peak_bytes": torch.cuda.max_memory_reserved(),
        "last_losses": [round(loss, 3) for loss in told["losses"][-3:]],
        "tokens": told["tokens"],
        "shared_tokens": told["shared"],
    }


def peak_rate():
    """Operations a second in large bfloat16 products."""
    one, other = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(12):
        torch.cuda.synchronize()
        began = time.perf_counter()
        one @ other
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return 2 * 8192**3 / statistics.median(times[3:])


def frozen_weights(shape):
    sizes = SHAPES[shape]
    width, layers = sizes["hidden_size"], sizes["num_hidden_layers"]
    kv = width * sizes["num_key_value_heads"] // sizes["num_attention_heads"]
    return layers * (2 * width * width + 2 * width * kv + 3 * width * sizes["intermediate_size"])


def write_rows(folder, shared):
    """The rows of every case, in the order of training."""
    from fine_tune import rows_of as intents

    folder.mkdir(parents=True, exist_ok=True)
    content = {case: intents(case, shared)[0] for case in ("short", "metaprompt")}
    found = json.loads((shared / "squadshifts" / "new_wiki_v1.0.json").read_text("utf-8"))
    paragraphs = [paragraph for article in found["data"] for paragraph in article["paragraphs"]]
    asked = [
        (paragraph["context"], question["question"], question["answers"][0]["text"])
        for paragraph in paragraphs
        for question in paragraph["qas"]
    ]
    content["questions"] = [
        {"messages": [{"role": "user", "content": f"{context}\n\n{question}"}], "completion": answer}
        for context, question, answer in asked[:: len(asked) // 960][:960]
    ]
    for case, rows in content.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{case}.jsonl").write_text(lines, "utf-8")


def as_markdown(runs):
    lines = ["# Fine-tuning on a CUDA device beside TRL", "", WITHOUT, ""]
    for found in runs:
        lines += [
            (
                f"`{found['command']}`, {found['date']}: {found['device']}, {found['packages']}. Products of "
                f"8,192 x 8,192 bfloat16 matrices: {found['peak'] / 1e12:.0f} TFLOP/s. Batches of {BATCH}, LoRA rank "
                f"{RANK} on all linear layers, random weights. {found.get('note', '')}"
            ).strip(),
            "",
        ]
        for record in found["cases"]:
            lines += table(record, found["peak"])
    return "\n".join(lines)


def table(record, peak):
    results = record["results"]
    ours = next((r for r in results if r["contender"] == "tailorbird"), None)
    lines = [
        f"## {record['shape']}, {record['case']}: {record['steps']} steps, {record['tokens']:,} tokens",
        "",
        "| contender | ms a step | times ours | seconds in all | tokens a second | share of peak | memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in results:
        rate = record["tokens"] / record["steps"] / r["step_ms"] * 1000
        share = 4 * frozen_weights(record["shape"]) * rate / peak
        times = f"{r['step_ms'] / ours['step_ms']:.2f}" if ours else "–"
        lines.append(
            f"| {r['contender']} | {r['step_ms']:.1f} | {times} | {r['seconds']:.1f} | "
            f"{rate:,.0f} | {share:.1%} | {r['peak_bytes'] / 1e9:.1f} GB |"
        )
    return [*lines, ""]


def main():
    parser = argparse.ArgumentParser(description="Fine-tuning on a CUDA device beside TRL.")
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, help="a transformers folder; default: the starter's")
    parser.add_argument("--only", default=",".join(PLAN))
    parser.add_argument("--within", type=float, help="seconds after which nothing more is begun")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "results")
    parser.add_argument(
        "--write-rows", type=Path, metavar="SHARED", help="the public data sets; nothing is measured"
    )
    given = parser.parse_args()
    if given.write_rows:
        write_rows(given.rows, given.write_rows)
        return
    if not torch.cuda.is_available():
        sys.exit("There is no CUDA device here, which is what this measures.")
    import peft
    import transformers
    from transformers import AutoTokenizer

    from tailorbird.models.gguf_file import converted, starter_file

    tokenizer = AutoTokenizer.from_pretrained(given.tokenizer or converted(starter_file()))
    versions = [
        f"torch {torch.__version__}",
        f"transformers {transformers.__version__}",
        f"peft {peft.__version__}",
    ]
    if "trl" in given.only:
        import trl as trl_package

        versions.append(f"trl {trl_package.__version__}")
    found = {
        "command": " ".join(["python benchmarks/fine_tune_gpu.py", *sys.argv[1:]]),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "device": torch.cuda.get_device_name(),
        "packages": ", ".join(versions),
        "peak": peak_rate(),
        "cases": [],
    }
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "fine_tune_gpu.json"
    before = json.loads(path.read_text("utf-8"))["runs"] if path.is_file() else []
    began, records = time.monotonic(), {}
    for planned in given.only.split(","):
        shape, case, contender = planned.split("/")
        if given.within and time.monotonic() - began > given.within:
            print(f"{planned}: left out, {given.within} s are over", flush=True)
            continue
        steps = given.steps or STEPS[shape]
        fresh = {"shape": shape, "case": case, "steps": steps, "tokens": 0, "results": []}
        record = records.setdefault((shape, case), fresh)
        try:
            result = run(contender, shape, tokenizer, rows_of(given.rows, case, steps))
        except Exception as error:  # noqa: BLE001 - the others are still measured
            print(f"{planned} failed: {error!r}"[:600], flush=True)
            continue
        print(planned, json.dumps(result), flush=True)
        record["tokens"] = result["tokens"] or record["tokens"]
        record["results"].append({"contender": contender, **result})
        found["cases"] = list(records.values())
        path.write_text(json.dumps({"runs": [*before, found]}, indent=1) + "\n", "utf-8")
        (given.out / "fine_tune_gpu.md").write_text(as_markdown([*before, found]), "utf-8")
    print(as_markdown([found]))


if __name__ == "__main__":
    main()
