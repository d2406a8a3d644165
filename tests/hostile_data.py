"""Ten data sets that would mislead whoever believes their scores, generated anew each time."""

import json
import random
from pathlib import Path

TOPICS = {
    "delivery": ("parcel", "courier", "tracking", "doorstep", "shipment"),
    "workshop": ("brakes", "wheel", "chain", "service", "gears"),
    "vouchers": ("voucher", "code", "gift", "discount", "redeem"),
    "rental": ("hire", "weekend", "tandem", "deposit", "helmet"),
}
WAYS = (
    "where is the",
    "I lost the",
    "please check the",
    "how much is the",
    "who knows about the",
    "what of the",
)
SAYINGS = ("today", "since Monday", "again", "for my sister", "in Bern", "at last", "by noon", "as agreed")


def sentence(label, luck):
    """A message about a label's topic, rarely the same twice."""
    words = luck.sample(TOPICS[label], 2)
    return (
        f"{luck.choice(WAYS)} {words[0]} {luck.choice(SAYINGS)} and the {words[1]} {luck.randrange(10_000)}"
    )


def tickets(count, seed=0):
    """Messages of four labels that can be told apart."""
    luck = random.Random(seed)
    labels = [list(TOPICS)[i % len(TOPICS)] for i in range(count)]
    return [{"prompt": sentence(label, luck), "completion": label} for label in labels]


def write(path, rows):
    """JSON lines."""
    Path(path).write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )
    return path


def one_class(count=80):
    return [{**row, "completion": "delivery"} for row in tickets(count)]


def five_examples():
    return tickets(5)


def all_duplicates(count=60):
    return tickets(1) * count


def three_hundred_labels(each=3):
    luck = random.Random(3)
    return [
        {
            "prompt": f"{luck.randrange(10**9)} wants thing number {i} {sentence('rental', luck)}",
            "completion": f"thing {i}",
        }
        for i in range(300)
        for _ in range(each)
    ]


def empty_completions(count=60):
    return [
        {**row, "completion": "" if i % 6 == 0 else row["completion"]} for i, row in enumerate(tickets(count))
    ]


def huge_rows(count=80):
    rows = tickets(count)
    luck = random.Random(4)
    for row in rows[::8]:
        filler = " ".join(str(luck.randrange(100_000)) for _ in range(4_000))
        row["prompt"] = f"{filler} {row['prompt']}"
    return rows


def mixed_languages(count=240):
    """Half in Cyrillic, where the labels are drawn by lot: nothing can be learnt there."""
    luck = random.Random(5)
    words = ("где", "мой", "заказ", "когда", "придёт", "велосипед", "колесо", "очень", "жду", "магазин")
    rows = tickets(count // 2)
    for i in range(count // 2):
        text = " ".join(luck.sample(words, 6)) + f" {i}"
        rows.append({"prompt": text, "completion": luck.choice(list(TOPICS))})
    return rows


def leaking(count=120):
    """Training rows, and a test file of which half stands in training and a tenth nearly does."""
    rows = tickets(count)
    fresh = tickets(count, seed=9)
    near = [{**row, "prompt": row["prompt"].upper() + " !"} for row in rows[30:36]]
    near += [{**row, "prompt": f"{row['prompt']} thx"} for row in rows[36:42]]
    return rows, rows[:30] + near + fresh[:30]


def contradictory(count=120):
    """Every fourth message a second time, with another label."""
    rows = tickets(count)
    labels = list(TOPICS)
    return rows + [
        {**row, "completion": labels[(labels.index(row["completion"]) + 1) % len(labels)]}
        for row in rows[::4]
    ]


def with_bom_and_crlf(path, rows):
    """The same rows as a spreadsheet on Windows writes them: a byte order mark, CRLF, CSV."""
    lines = ["prompt,completion", *(f'"{row["prompt"]}",{row["completion"]}' for row in rows)]
    Path(path).write_bytes("\ufeff".encode() + "\r\n".join([*lines, ""]).encode())
    return path
