"""Two hundred hostile files: each is refused or read within its limits, and the one who asks is unharmed."""

import io
import json
import random
import struct
import sys
import time
import zipfile
from email.message import EmailMessage
from pathlib import Path

import pytest
from openpyxl import Workbook
from pptx import Presentation
from written_documents import (
    CONTENT_TYPES,
    RELS,
    WORD,
    make_docx,
    make_pdf,
    make_pdf_bomb,
    paragraph,
    rewritten,
)

from tailorbird.data.documents import Limits, Unreadable, read_folder
from tailorbird.records import Document

pytestmark = pytest.mark.slow

LIMITS = Limits(memory_bytes=200 * 2**20, cpu_s=3, wall_s=20, chars=2_000_000)
GOOD = "<title>Good</title><p>Still read."
NUM_FILES = 200


def saved(written):
    out = io.BytesIO()
    written.save(out)
    return out.getvalue()


def zipped(**parts):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return out.getvalue()


def sheet(xml):
    return rewritten(good()["xlsx"], "xl/worksheets/sheet1.xml", lambda _: xml)


def good():
    """One sound file of each kind."""
    book = Workbook()
    for row in (["Card", "Fee"], ["Gold", 9], ["Sum", "=B2*2"]):
        book.active.append(row)
    deck = Presentation()
    deck.slides.add_slide(deck.slide_layouts[1]).shapes.title.text = "Fees"
    mail = EmailMessage()
    mail["Subject"], mail["From"] = "Fees", "a@example.org"
    mail.set_content("None.")
    mail.add_attachment(b"x" * 100, maintype="application", subtype="pdf", filename="a.pdf")
    cells = [
        {"cell_type": "markdown", "source": "# Fees"},
        {"cell_type": "code", "source": "1", "outputs": []},
    ]
    return {
        "pdf": make_pdf("Fees", "None"),
        "docx": make_docx(paragraph("Fees", "Heading1") + paragraph("None.") * 20),
        "xlsx": saved(book),
        "pptx": saved(deck),
        "eml": mail.as_bytes(),
        "ipynb": json.dumps({"nbformat": 4, "cells": cells}).encode(),
        "json": json.dumps([{"name": "Gold", "fee": 9}] * 5).encode(),
        "jsonl": b'{"name": "Gold", "fee": 9}\n' * 5,
        "csv": b'Card,Fee\nGold,"9"\n' * 5,
        "html": b"<h1>Fees</h1><table><tr><td>a<td>b</table>",
        "py": b"def fee():\n    return 9\n\n\nclass A:\n    x = 1\n",
    }


def bombs():
    """Small files that would take much memory or time."""
    filler = random.Random(1).randbytes(60_000).hex()
    nested = "<w:tbl><w:tr><w:tc>" * 5_000 + "<w:p/>" + "</w:tc></w:tr></w:tbl>" * 5_000
    entities = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + "".join(
        f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    yield from (("pdf", make_pdf_bomb(mb * 2**20)) for mb in (150, 300, 500))
    yield "docx", make_docx("", extra=[("word/zeros.bin", bytes(30_000_000))])
    yield "docx", make_docx(nested)
    yield "docx", make_docx("<w:r>" * 20_000)
    yield "docx", make_docx(paragraph(" ".join(f"{i}" for i in range(20))) * 60_000 + f"<!-- {filler} -->")
    yield "docx", make_docx("<w:p/>" * 1_500_000 + f"<!-- {filler} -->")
    yield "docx", make_docx("", head=entities + "]><?pi ?>")
    yield "docx", make_docx("", head="<!-- " + "x" * 200_000 + filler + " -->" + entities + "]>")
    yield "docx", make_docx("", extra=[(f"word/{i}.xml", "<a/>") for i in range(11_000)])
    yield "docx", make_docx(f"<w:p><w:r><w:t>{'x' * 4_000_000}{filler}</w:t></w:r></w:p>")
    yield "docx", many_parts_over_one()
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    wrap = f'<worksheet xmlns="{main}"><dimension ref="A1:XFD1048576"/><sheetData>%s</sheetData></worksheet>'
    row = '<row r="%s"><c r="%s"><v>1</v></c></row>'
    yield "xlsx", sheet(wrap % (row % (1_048_576, "XFD1048576")))
    yield "xlsx", sheet(wrap % (row % (2**40, "A1")))
    yield "xlsx", sheet(wrap % (row % ("-5", "A1")))
    yield "xlsx", sheet(wrap % "".join(row % (i, f"XFD{i}") for i in range(1, 3_000)))
    yield "xlsx", sheet(wrap % ("<row/>" * 1_000_000 + f"<!-- {filler} -->"))
    yield "xlsx", sheet(wrap % ("<row>" * 50_000))
    yield "xlsx", sheet(wrap % ('<row><c t="s"><v>999999999</v></c></row>'))
    yield "xlsx", sheet(wrap % ("<row><c><v>" + "9" * 100_000 + filler + "</v></c></row>"))
    yield (
        "xlsx",
        sheet(
            wrap % ('<row><c t="inlineStr"><is>' + "<r><t>a</t></r>" * 100_000 + filler + "</is></c></row>")
        ),
    )
    yield "xlsx", sheet(wrap % "".join(f"<row><c><f>A{i}</f></c></row>" for i in range(50_000)))
    yield "xlsx", sheet(entities + "]>" + wrap % "<row><c><v>&i;</v></c></row>")
    yield "xlsx", sheet((entities + "]>" + wrap % "").encode("utf-16"))
    yield (
        "pptx",
        rewritten(
            good()["pptx"], "ppt/slides/slide1.xml", lambda xml: xml.replace(b"<p:sp>", b"<p:grpSp>" * 9_000)
        ),
    )
    yield (
        "pptx",
        rewritten(
            good()["pptx"],
            "ppt/slides/slide1.xml",
            lambda xml: xml.replace(b"<a:p>", b"<a:p/>" * 1_000_000 + filler.encode() + b"<a:p>", 1),
        ),
    )
    yield (
        "pptx",
        rewritten(
            good()["pptx"],
            "ppt/presentation.xml",
            lambda xml: xml.replace(
                b"</p:sldIdLst>", b'<p:sldId id="300" r:id="rId7"/>' * 9_000 + b"</p:sldIdLst>"
            ),
        ),
    )
    yield (
        "pptx",
        rewritten(good()["pptx"], "ppt/slides/slide1.xml", lambda xml: entities.encode() + b"]>" + xml),
    )
    for deep in (b"[", b'{"a":', b'[{"":[', b"[[[]],"):
        yield "json", deep * 300_000
        yield "jsonl", b"1\n" + deep * 300_000
        yield "ipynb", b'{"nbformat": 4, "cells": ' + deep * 300_000
    yield "json", b"[" + b"9" * 3_000_000 + b"]"
    yield "json", b"[" + b"{}," * 3_000_000 + b"1]"
    yield "json", b'"' + b"\\ud800" * 400_000 + b'"'
    yield "jsonl", b"[]\n" * 1_000_000
    output = {"output_type": "stream", "text": "x" * 20_000_000}
    yield (
        "ipynb",
        json.dumps(
            {"nbformat": 4, "cells": [{"cell_type": "code", "source": "1", "outputs": [output]}]}
        ).encode(),
    )
    yield "ipynb", json.dumps({"nbformat": 4, "cells": [{"cell_type": "code"}] * 500_000}).encode()
    yield "csv", b'a,b\n1,"' + b"x" * 5_000_000
    yield "csv", b"," * 5_000_000
    yield "csv", b'"' * 5_000_001
    yield "csv", (b"a" * 100_000 + b",") * 100
    yield "tsv", b"\t" * 2_000_000 + b"\n" + b"x" * 2_000_000
    yield "csv", b"\xff\xfe" + "a;b\n".encode("utf-16-le") * 200_000 + b"x"
    inner = b"Subject: innermost\n\nx"
    for _ in range(3_000):
        inner = b"Content-Type: message/rfc822\n\n" + inner
    yield "eml", b"Subject: nested\nMIME-Version: 1.0\n" + inner
    inner = b"x"
    for i in range(2_000):
        inner = b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n%b\n--b%d--\n" % (i, i, inner, i)
    yield "eml", b"Subject: parts\nMIME-Version: 1.0\n" + inner
    yield "eml", b"Subject: " + b"=?utf-8?q?a?= " * 100_000 + b"\n\nx"
    yield "eml", b"To: " + b"a@b.c, " * 100_000 + b"\n\nx"
    yield "eml", b"To: " + b"(" * 100_000 + b"\n\nx"
    yield "eml", b"Subject: x\nContent-Type: text/plain; " + b"a=b; " * 100_000 + b"\n\nx"
    yield "eml", b"Subject: x\nContent-Type: multipart/mixed; boundary=q\n\n" + b"--q\n\nx\n" * 300_000
    yield "eml", b"Subject: x\nContent-Type: text/html\n\n" + b"<div>" * 300_000
    for tag in (b"<div>", b"<b>", b"<table><tr><td>", b"<ul><li>", b"<a href=x>", b"<!--", b"<p style='"):
        yield "html", tag * 300_000
    yield "html", b"<table>" + b"<tr>" + b"<td>x" * 300_000
    yield "py", b"`" * 3_000_000
    yield "py", b"a\n\n  b\n" * 300_000
    yield "yaml", b"a: &a [*a]\n" * 100_000
    yield "xml", entities.encode() + b"]><x>&i;</x>"
    yield "md", b"<!--" * 500_000
    yield "md", b"# " * 500_000
    yield "txt", b"\xff\xfe\x00\xd8" * 100_000


def many_parts_over_one():
    """A zip whose directory names the same packed bytes many times over."""
    data = zipped(**{"word/document.xml": b" " * 100_000})
    end = data.rindex(b"PK\x05\x06")
    start = struct.unpack("<I", data[end + 16 : end + 20])[0]
    entry = data[start:end]
    many = entry * 5_000
    count = struct.pack("<HHHHIIH", 0, 0, 5_000, 5_000, len(many), start, 0)
    return data[:start] + many + b"PK\x05\x06" + count


def lies():
    """Files that are of another kind than their name says."""
    samples = good()
    for name, other in (
        ("pdf", "docx"),
        ("docx", "xlsx"),
        ("xlsx", "pptx"),
        ("pptx", "docx"),
        ("docx", "pdf"),
    ):
        yield name, samples[other]
    for name in ("txt", "csv", "json", "eml", "py", "html", "ipynb"):
        yield name, samples["pdf"]
        yield name, samples["xlsx"]
    for name in ("json", "ipynb", "eml", "csv", "py"):
        yield name, bytes(range(256)) * 100
    for name in ("pdf", "docx", "xlsx", "pptx"):
        yield name, b"%PDF-" if name == "pdf" else b"PK\x03\x04"
        yield name, zipped(**{"[Content_Types].xml": CONTENT_TYPES, "_rels/.rels": RELS})
    yield "docx", zipped(**{"word/document.xml": f'<w:document xmlns:w="{WORD}"><w:body/></w:document>'})
    yield "xlsx", zipped(**{"xl/workbook.xml": "<workbook/>"})
    yield "pptx", zipped(**{"ppt/presentation.xml": "<p/>"})


def damaged(num_files):
    """Good files cut short, and with bits turned over."""
    samples, rng = good(), random.Random(0)
    for i in range(num_files):
        kind = list(samples)[i % len(samples)]
        data = bytearray(samples[kind])
        if i % 3 == 0:
            yield kind, bytes(data[: rng.randrange(1, len(data))])
            continue
        for _ in range(1 + i % 20):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        yield kind, bytes(data)


def memory_bytes():
    with Path("/proc/self/status").open() as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))


def write_all(folder):
    hostile = [*bombs(), *lies()]
    hostile += damaged(NUM_FILES - len(hostile))
    assert len(hostile) == NUM_FILES
    for number, (kind, data) in enumerate(hostile):
        (folder / f"{number:03}.{kind}").write_bytes(data)
        (folder / f"{number:03}_then.html").write_text(GOOD)


def children():
    """The processes that this one has started and that are not waited for."""
    return {
        int(pid)
        for task in Path("/proc/self/task").iterdir()
        for pid in (task / "children").read_text().split()
    }


@pytest.mark.timeout(1800)
@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are held, and measured, on Linux")
def test_two_hundred_hostile_files_do_no_harm(tmp_path):
    write_all(tmp_path)
    before, most, found = memory_bytes(), 0, {}
    others = children()
    reading = read_folder(tmp_path, LIMITS)
    begin = time.perf_counter()
    for item in reading:
        took = time.perf_counter() - begin
        found[item.id] = item
        most = max(most, memory_bytes())
        assert took < LIMITS.wall_s + 5, f"{item.id} took {took:.1f} s"
        begin = time.perf_counter()
    assert len(found) == 2 * NUM_FILES
    for name, item in found.items():
        if name.endswith("_then.html"):
            assert isinstance(item, Document), f"{name}: {item}"
            assert item.text == "Still read."
        elif isinstance(item, Unreadable):
            assert item.reason.endswith("."), item
            assert "\n" not in item.reason
        else:
            assert 0 < len(item.text) <= LIMITS.chars
            item.text.encode()  # no halves of characters
    assert most - before < 200 * 2**20, f"{(most - before) / 2**20:.0f} MB more"
    assert children() <= others  # nobody is left
