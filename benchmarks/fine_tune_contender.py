"""Trains once, as one contender would, and prints what it took as a line of JSON.

    python benchmarks/fine_tune_contender.py JOB.json

JOB.json: contender, base (a transformers folder), rows (JSONL of messages and completion, in the order of
training), steps, batch_size, learning_rate, rank, out (folder that gets the adapter in PEFT's format).
Run by fine_tune.py, in an environment that has the contender's packages.
"""

import json
import resource
import sys
import time
from importlib import import_module
from pathlib import Path

import torch


def read_rows(job):
    rows = [json.loads(line) for line in Path(job["rows"]).read_text("utf-8").splitlines()]
    count = job["steps"] * job["batch_size"]
    return [rows[n % len(rows)] for n in range(count)]


def lora_config(job):
    from peft import LoraConfig

    return LoraConfig(
        r=job["rank"], lora_alpha=2 * job["rank"], target_modules="all-linear", task_type="CAUSAL_LM"
    )


def tailorbird(job):
    """FineTune over the rows; what it takes includes tokenizing and planning."""
    from tailorbird.data.task import Data, Task
    from tailorbird.models.local import open_local
    from tailorbird.records import Example, Message
    from tailorbird.techniques.fine_tune import FineTune

    # As the others import what they need before their time begins.
    import_module("peft")
    import_module("tailorbird.techniques.measured_training")
    model = open_local(job["base"])
    examples = tuple(
        Example(tuple(Message(**m) for m in row["messages"]), row["completion"], line=n)
        for n, row in enumerate(read_rows(job), 1)
    )
    technique = FineTune(
        rank=job["rank"],
        learning_rate=job["learning_rate"],
        epochs=1,
        batch_size=job["batch_size"],
        precision=job.get("precision", "auto"),
        seed=job.get("seed", 0),
    )
    losses = []
    technique = technique.__class__(
        **{**vars(technique), "on_step": lambda report: losses.append(report.loss)}
    )
    began = time.perf_counter()
    tuned = technique.apply(model, Data(Task("answer", ""), examples, ()))
    seconds = time.perf_counter() - began
    Path(job["out"]).mkdir(parents=True, exist_ok=True)
    tuned.engine.save_adapter(tuned.adapter, Path(job["out"]))
    return seconds, losses


def trl(job, **settings):
    """TRL's SFTTrainer on conversational prompt/completion rows; what it takes is the training alone."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    rows = [
        {"prompt": row["messages"], "completion": [{"role": "assistant", "content": row["completion"]}]}
        for row in read_rows(job)
    ]
    config = SFTConfig(
        output_dir=job["out"] + "-trainer",
        per_device_train_batch_size=job["batch_size"],
        max_steps=job["steps"],
        learning_rate=job["learning_rate"],
        lr_scheduler_type="cosine",
        warmup_steps=max(1, round(0.06 * job["steps"])),
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        **settings,
    )
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(job["base"], dtype=torch.float32),
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(job["base"]),
        peft_config=lora_config(job),
    )
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    trainer.model.save_pretrained(job["out"])
    return seconds, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def llamafactory(job, **settings):
    """LLaMA-Factory's trainer on chat rows; what it takes is the training alone, as it measures it."""
    import os

    os.environ["WANDB_DISABLED"] = "true"
    from llamafactory.train.tuner import run_exp

    folder = Path(job["out"] + "-llamafactory")
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"messages": [*row["messages"], {"role": "assistant", "content": row["completion"]}]}
        for row in read_rows(job)
    ]
    (folder / "rows.json").write_text(json.dumps(rows, ensure_ascii=False), "utf-8")
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    described = {
        "rows": {
            "file_name": "rows.json",
            "formatting": "sharegpt",
            "columns": {"messages": "messages"},
            "tags": {**tags, "system_tag": "system"},
        }
    }
    (folder / "dataset_info.json").write_text(json.dumps(described), "utf-8")
    run_exp(
        {
            "stage": "sft",
            "do_train": True,
            "model_name_or_path": job["base"],
            "finetuning_type": "lora",
            "lora_target": "all",
            "lora_rank": job["rank"],
            "lora_alpha": 2 * job["rank"],
            "dataset": "rows",
            "dataset_dir": str(folder),
            "template": "smollm2",
            "cutoff_len": 2048,
            "overwrite_cache": True,
            "output_dir": str(folder / "out"),
            "overwrite_output_dir": True,
            "per_device_train_batch_size": job["batch_size"],
            "gradient_accumulation_steps": 1,
            "max_steps": job["steps"],
            "learning_rate": job["learning_rate"],
            "lr_scheduler_type": "cosine",
            "warmup_steps": max(1, round(0.06 * job["steps"])),
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "use_cpu": True,
            "disable_tqdm": True,
            **settings,
        }
    )
    state = json.loads((folder / "out" / "trainer_state.json").read_text("utf-8"))
    losses = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
    for file in (folder / "out").glob("adapter_*"):
        Path(job["out"]).mkdir(parents=True, exist_ok=True)
        file.replace(Path(job["out"]) / file.name)
    return state["log_history"][-1]["train_runtime"], losses


def plain(job):
    """The loop that a textbook has: padded batches, all logits, float32, AdamW."""
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, get_cosine_schedule_with_warmup

    tokenizer = AutoTokenizer.from_pretrained(job["base"])
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(job["base"], dtype=torch.float32), lora_config(job)
    )
    rows = []
    for row in read_rows(job):
        prompt = tokenizer.apply_chat_template(
            row["messages"], add_generation_prompt=True, tokenize=True, return_dict=True
        )["input_ids"]
        turns = [*row["messages"], {"role": "assistant", "content": row["completion"]}]
        whole = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=True)["input_ids"]
        rows.append((whole, [-100] * len(prompt) + whole[len(prompt) :]))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=job["learning_rate"])
    schedule = get_cosine_schedule_with_warmup(optimizer, max(1, round(0.06 * job["steps"])), job["steps"])
    losses, size = [], job["batch_size"]
    began = time.perf_counter()
    model.train()
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        width = max(len(ids) for ids, _ in batch)
        ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in batch])
        labels = torch.tensor([labels + [-100] * (width - len(labels)) for _, labels in batch])
        mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in batch])
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    seconds = time.perf_counter() - began
    model.save_pretrained(job["out"])
    return seconds, losses


CONTENDERS = {
    "tailorbird": tailorbird,
    "trl_default": trl,
    "trl_tuned_bf16": lambda job: trl(
        job, bf16=True, gradient_checkpointing=False, train_sampling_strategy="group_by_length"
    ),
    "trl_tuned_fp32": lambda job: trl(
        job, bf16=False, gradient_checkpointing=False, train_sampling_strategy="group_by_length"
    ),
    "llamafactory_default": llamafactory,
    "llamafactory_tuned": lambda job: llamafactory(
        job, disable_gradient_checkpointing=True, train_sampling_strategy="group_by_length"
    ),
    "plain": plain,
}


def main():
    job = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    seconds, losses = CONTENDERS[job["contender"]](job)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        "RESULT "
        + json.dumps(
            {
                "contender": job["contender"],
                "seconds": seconds,
                "steps": len(losses),
                "peak_bytes": peak,
                "packages": versions(),
            }
        )
    )


def versions():
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("torch", "transformers", "peft", "trl", "llamafactory"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main()
