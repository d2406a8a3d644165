"""Pages a second and memory of reading a Wikipedia dump, beside mwparserfromhell's own `strip_code`.

    python benchmarks/wikipedia_dump.py DUMP [--times 20]

Both get the same pages from the same reader of XML; the other keeps no headings, lists or tables. With `--times`
the pages are also written so many times over, under other titles, into one dump: how memory grows with length.
"""

import argparse
import bz2
import os
import re
import sys
import tempfile
import threading
import time
from pathlib import Path

from tailorbird.data.mediawiki_export import read_pages
from tailorbird.records import Document
from tailorbird.sources.wikipedia_dump import wikipedia_dump_at


def articles(dump):
    return [
        (site, page)
        for site, page in read_pages(dump)
        if page.namespace == 0 and not page.is_redirect and page.text
    ]


class Clock:
    """Seconds since it was made: on the wall, and of computing, by this process and its children that ended."""

    def __init__(self):
        self.wall, self.cpu = time.perf_counter(), sum(os.times()[:4])

    def told(self, name, pages, chars):
        wall, cpu = time.perf_counter() - self.wall, sum(os.times()[:4]) - self.cpu
        print(
            f"{name:<40}{pages / wall:7.1f} pages/s {wall:6.1f} s; computing {cpu:6.1f} s, {pages / cpu:6.1f} pages a "
            f"second of it; {chars:>10,} characters",
            flush=True,
        )


def ours(dump, processes):
    clock = Clock()
    pages = chars = 0
    for item in wikipedia_dump_at(str(dump), processes=processes).documents():
        pages += 1
        chars += len(item.text) if isinstance(item, Document) else 0
    clock.told(f"tailorbird, {processes} process(es)", pages, chars)


def second_sync(dump):
    connector = wikipedia_dump_at(str(dump))
    known = {item.id: item.version for item in connector.documents() if isinstance(item, Document)}
    clock = Clock()
    count = sum(1 for _ in connector.changes(known))
    clock.told("tailorbird, nothing changed", count, 0)


def theirs(dump):
    import mwparserfromhell

    clock = Clock()
    chars = pages = 0
    for _, page in articles(dump):
        chars += len(mwparserfromhell.parse(page.text).strip_code())
        pages += 1
    clock.told("mwparserfromhell, parse and strip_code", pages, chars)


class Memory(threading.Thread):
    """The most memory that this process and its children had at one time, in bytes (Linux)."""

    def __init__(self):
        super().__init__(daemon=True)
        self.most, self.most_own, self.ended = 0, 0, threading.Event()

    def run(self):
        while not self.ended.wait(0.05):
            own = resident("self")
            pids = {pid for file in Path("/proc/self/task").glob("*/children") for pid in words_in(file)}
            self.most_own = max(self.most_own, own)
            self.most = max(self.most, own + sum(map(resident, pids)))


def words_in(file):
    """The words of a file; none if what it tells of has ended."""
    try:
        return file.read_text().split()
    except OSError:
        return []


def resident(pid):
    words = words_in(Path(f"/proc/{pid}/status"))
    return int(words[words.index("VmRSS:") + 1]) * 1024 if "VmRSS:" in words else 0


def many_times(dump, times, target):
    data = bz2.decompress(dump.read_bytes()).decode()
    head, _, rest = data.partition("<page>")
    body = f"<page>{rest}".rpartition("</page>")[0] + "</page>"
    with bz2.open(target, "wt", compresslevel=1) as file:
        file.write(head)
        for n in range(times):
            file.write(re.sub(r"<title>(.*?)</title>", rf"<title>\1 ({n})</title>", body))
        file.write("</mediawiki>")
    return len(data) * times


def memory_of(dump):
    memory = Memory()
    memory.start()
    begin = time.perf_counter()
    count = sum(1 for _ in wikipedia_dump_at(str(dump), processes=2).documents())
    seconds = time.perf_counter() - begin
    memory.ended.set()
    print(
        f"{count:,} pages in {seconds:.1f} s ({count / seconds:.1f} pages/s): at most {memory.most_own / 2**20:.0f} MB "
        f"here, {memory.most / 2**20:.0f} MB with two children"
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dump", type=Path)
    parser.add_argument("--times", type=int, default=0)
    asked = parser.parse_args()
    pages = articles(asked.dump)
    print(f"{len(pages)} articles, {sum(len(page.text) for _, page in pages):,} characters of wikitext")
    del pages
    for processes in (1, 2):
        ours(asked.dump, processes)
    second_sync(asked.dump)
    theirs(asked.dump)
    if asked.times and sys.platform == "linux":
        with tempfile.TemporaryDirectory() as folder:
            for times in (1, asked.times):
                long = Path(folder) / f"{times}.xml.bz2"
                num_chars = many_times(asked.dump, times, long)
                print(f"{times} times, {num_chars / 2**20:.0f} MB of XML: ", end="", flush=True)
                memory_of(long)


if __name__ == "__main__":
    main()
