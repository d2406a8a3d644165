"""One contender of few_shot_speed.py in a process of its own: answers a job's questions and says how long it took.

The job is a JSON file: the contender's name, the starter as a transformers folder and as a GGUF file, the labels, and
for every question its messages, its examples and the text of its whole prompt. Prints RESULT and JSON.
"""

import json
import os
import sys
import time
from pathlib import Path


def tailorbird(job):
    """The prompts as they come from the metaprompt, all at once."""
    from tailorbird.models.local import open_local
    from tailorbird.opening import set_threads
    from tailorbird.records import Message, Request

    set_threads()
    model = open_local(job["folder"])
    requests = [
        Request(tuple(Message(*turn) for turn in q["turns"]), choices=tuple(job["labels"]))
        for q in job["questions"]
    ]
    if job["contender"] == "tailorbird_single":
        return lambda: [model.answer([request])[0].text for request in requests]
    return lambda: [answer.text for answer in model.answer(requests)]


def lm_eval(job):
    """Every label after every prompt, as lm-evaluation-harness asks its hf model for multiple choice."""
    import torch
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    loaded = AutoModelForCausalLM.from_pretrained(job["folder"], dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(job["folder"])
    batch = 1 if job["contender"] == "lm_eval_default" else 16
    model = HFLM(pretrained=loaded, tokenizer=tokenizer, batch_size=batch, device="cpu")
    labels = job["labels"]
    asked = [
        Instance("loglikelihood", {}, (q["prompt"], label), n)
        for n, q in enumerate(job["questions"])
        for label in labels
    ]

    def run():
        found = [score for score, _ in model.loglikelihood(asked, disable_tqdm=True)]
        rows = [found[n : n + len(labels)] for n in range(0, len(found), len(labels))]
        return [labels[row.index(max(row))] for row in rows]

    return run


def dspy(job):
    """A program that predicts a label, with the same examples as demonstrations, over llama.cpp's server."""
    from typing import Literal

    import dspy

    lm = dspy.LM(
        "openai/starter",
        api_base=f"{job['url']}/v1",
        api_key="none",
        cache=False,
        temperature=0.0,
        max_tokens=64,
    )
    dspy.configure(lm=lm)

    class Classify(dspy.Signature):
        """Name the category of the message."""

        message: str = dspy.InputField()
        label: Literal[tuple(job["labels"])] = dspy.OutputField()

    def one(question):
        program = dspy.Predict(Classify)
        program.demos = [
            dspy.Example(message=m, label=c).with_inputs("message") for m, c in question["examples"]
        ]
        try:
            return program(message=question["message"]).label
        except Exception:  # noqa: BLE001 - an answer that the adapter cannot read
            return ""

    if job["contender"] == "dspy_default":
        return lambda: [one(question) for question in job["questions"]]

    def together():
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(job["slots"]) as pool, dspy.context(lm=lm):
            return list(pool.map(one, job["questions"]))

    return together


def main():
    job = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    kind = job["contender"].split("_")[0]
    run = {"tailorbird": tailorbird, "lm": lm_eval, "dspy": dspy}[kind](job)
    began = time.perf_counter()
    said = run()
    print("RESULT " + json.dumps({"seconds": time.perf_counter() - began, "said": said}), flush=True)


if __name__ == "__main__":
    main()
