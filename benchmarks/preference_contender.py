"""Learns preferences once, as one contender would, and prints what it took as a line of JSON.

    python benchmarks/preference_contender.py JOB.json

JOB.json: contender, base (a transformers folder), task, examples (messages, completion, rejected), epochs;
rows (token ids of every pair in the order of training); batch_size, learning_rate, rank, beta, precision;
start (the fresh layers in PEFT's format), out (folder that gets the trained ones).
Run by preference.py, in an environment that has the contender's packages.
"""

import json
import resource
import sys
import time
from pathlib import Path

import torch
from fine_tune_contender import lora_config, versions


def tailorbird(job):
    """FineTune over the pairs; what it takes includes tokenizing, planning and the reference."""
    from tailorbird.data.task import Data, Task
    from tailorbird.models.local import open_local
    from tailorbird.records import Example, Message
    from tailorbird.techniques.fine_tune import FineTune

    model = open_local(job["base"])
    examples = tuple(
        Example(
            tuple(Message(**m) for m in row["messages"]), row["completion"], line=n, rejected=row["rejected"]
        )
        for n, row in enumerate(job["examples"], 1)
    )
    task = Task(**{**job["task"], "labels": tuple(job["task"]["labels"])})
    reports = []
    technique = FineTune(
        objective="dpo",
        rank=job["rank"],
        learning_rate=job["learning_rate"],
        epochs=job["epochs"],
        beta=job["beta"],
        batch_size=job["batch_size"],
        precision=job["precision"],
        on_step=reports.append,
    )
    began = time.perf_counter()
    tuned = technique.apply(model, Data(task, examples))
    seconds = time.perf_counter() - began
    Path(job["out"]).mkdir(parents=True, exist_ok=True)
    tuned.engine.save_adapter(tuned.adapter, Path(job["out"]))
    steps = [(r.loss, r.gradient_norm, r.reward_margin) for r in reports]
    return seconds, steps


def trl(job, **settings):
    """TRL's DPOTrainer on the same token ids, layers and rates; what it takes includes making the trainer."""
    from datasets import Dataset
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    from tailorbird.network.schedule import schedule_factor

    class Given(DPOTrainer):
        """Takes pairs that are token ids already."""

        def _prepare_dataset(self, dataset, *_):
            return dataset

    num_steps = len(job["rows"]) // job["batch_size"]
    config = DPOConfig(
        output_dir=job["out"] + "-trainer",
        per_device_train_batch_size=job["batch_size"],
        max_steps=num_steps,
        learning_rate=job["learning_rate"],
        beta=job["beta"],
        train_sampling_strategy="sequential",
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        **settings,
    )
    model = AutoModelForCausalLM.from_pretrained(job["base"], dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(job["base"])
    began = time.perf_counter()
    trainer = Given(
        model=model,
        args=config,
        train_dataset=Dataset.from_list(job["rows"]),
        processing_class=tokenizer,
        peft_config=lora_config(job),
    )
    # Layers that add nothing yet: references computed above are those of the base either way.
    start = load_file(str(Path(job["start"]) / "adapter_model.safetensors"))
    set_peft_model_state_dict(trainer.model, start)
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    trainer.optimizer = torch.optim.AdamW(
        trained, lr=job["learning_rate"], betas=(0.9, 0.95), weight_decay=0.0
    )
    trainer.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
        trainer.optimizer, lambda step: schedule_factor(min(step, num_steps), num_steps, warmup_fraction=0.06)
    )
    losses = []
    keep_unrounded(trainer, losses)
    trainer.train()
    seconds = time.perf_counter() - began
    trainer.model.save_pretrained(job["out"])
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    steps = [(loss, e["grad_norm"], e["rewards/margins"]) for loss, e in zip(losses, logged, strict=True)]
    return seconds, steps


def keep_unrounded(trainer, losses):
    """Notes every step's loss as computed: the trainer's log rounds it."""
    compute = trainer.compute_loss

    def noted(*given, **named):
        found = compute(*given, **named)
        losses.append(float((found[0] if isinstance(found, tuple) else found).detach()))
        return found

    trainer.compute_loss = noted


CONTENDERS = {
    "tailorbird": tailorbird,
    "trl_default": trl,
    "trl_bf16": lambda job: trl(job, bf16=True, gradient_checkpointing=False),
    "trl_bf16_precomputed": lambda job: trl(
        job, bf16=True, gradient_checkpointing=False, precompute_ref_log_probs=True
    ),
    "trl_fp32": lambda job: trl(job, bf16=False, gradient_checkpointing=False),
    "trl_fp32_precomputed": lambda job: trl(
        job, bf16=False, gradient_checkpointing=False, precompute_ref_log_probs=True
    ),
}


def main():
    job = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    seconds, steps = CONTENDERS[job["contender"]](job)
    losses, norms, margins = zip(*steps, strict=True)
    found = {
        "contender": job["contender"],
        "seconds": seconds,
        "losses": losses,
        "gradient_norms": norms,
        "reward_margins": margins,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "packages": versions(),
    }
    print("RESULT " + json.dumps(found))


if __name__ == "__main__":
    main()
