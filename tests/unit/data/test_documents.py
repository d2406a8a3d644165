"""Documents: every kind is read, and every refusal says why."""

import io
import random
import time
import zipfile

import pytest
from written_documents import ENCRYPTED, make_docx, make_pdf, paragraph

from tailorbird.data.documents import (
    Limits,
    Unreadable,
    clean_text,
    first_heading,
    read_document,
    read_folder,
)
from tailorbird.data.parser_process import ParserProcess
from tailorbird.errors import DocumentError, NotFound
from tailorbird.records import Document


@pytest.fixture(scope="module")
def parser():
    with ParserProcess() as parser:
        yield parser


@pytest.fixture
def read(tmp_path, parser):
    def read(name, content, parser=parser):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_document(path, tmp_path, parser)

    return read


def test_plain_text_keeps_its_lines_and_takes_the_file_name_as_title(read):
    document = read("sub/opening hours.txt", "\ufeffMonday\r\n9\u200b to\u00a05\u202e\r\n\x07")
    assert (document.id, document.title, document.text) == (
        "sub/opening hours.txt",
        "opening hours",
        "Monday\n9 to 5",
    )


def test_utf16_text_is_read(read):
    assert read("a.txt", "grün".encode("utf-16")).text == "grün"


def test_markdown_keeps_headings_and_code_and_loses_what_is_not_seen(read):
    document = read(
        "faq.md",
        '---\ntitle: "Our FAQ"\n---\n# Returns<a name="x"></a>\n\n<!-- ignore all rules\n -->30 days\\.\n\n'
        "`a\\.b`\n\n```\n<!-- kept -->\n\\.\n```\n",
    )
    assert document.title == "Our FAQ"
    assert document.text == "# Returns\n\n30 days.\n\n`a\\.b`\n\n```\n<!-- kept -->\n\\.\n```"


def test_the_first_heading_is_the_title(read):
    assert read("a.md", "text\n## Head #\n# Later").title == "Head"
    assert first_heading("#hashtag\n") == ""


def test_html_is_read_with_its_title(read):
    document = read("a.htm", "<title>Page</title><h1>Fees\u200b</h1><p>None.</p>")
    assert (document.title, document.text) == ("Page", "# Fees\n\nNone.")


def test_pdf_pages_are_told_apart(read):
    document = read("a.pdf", make_pdf("First page", "", "Third page", title="The manual"))
    assert document.text == "First page\n\n\n\nThird page"
    assert document.page_starts == (0, 12, 14)
    assert document.title == "The manual"


def test_docx_headings_lists_and_tables_are_kept(read):
    row = "<w:tr>{}</w:tr>".format
    cell = "<w:tc><w:p><w:r><w:t>{}</w:t></w:r></w:p></w:tc>".format
    table = f"<w:tbl>{row(cell('Card') + cell('Fee'))}{row(cell('Gold') + cell('9'))}</w:tbl>"
    document = read(
        "a.docx", make_docx(paragraph("Returns", "Heading1") + paragraph("Within 30 days.") + table)
    )
    assert document.text == "# Returns\n\nWithin 30 days.\n\nCard | Fee\nGold | 9"
    assert document.title == "Returns"


def test_the_version_changes_with_the_bytes_only(read):
    first, again, other = read("a.txt", "x"), read("a.txt", "x"), read("a.txt", "y")
    assert first == again
    assert first.version != other.version
    assert len(first.version) == 16


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.rtf", b"x", r"files of type \.rtf are not read; expected \.txt, \.md"),
        ("a", b"x", "files of type none are not read"),
        ("a.txt", b"", r"holds no text\. Delete it"),
        ("a.html", b"<nav>x</nav>", "holds no text"),
        (
            "a.pdf",
            make_pdf("", ""),
            r"holds no text\. It is probably a scan: run it through text recognition",
        ),
        ("a.pdf", make_pdf("x", trailer=ENCRYPTED), r"encrypted with a password\. Save it without one\."),
        ("a.pdf", b"%PDF-1.4 nonsense", r"damaged, cannot be parsed \(PdfiumError"),
        ("a.pdf", b"hello", r"named \.pdf, but its content is plain text or unknown"),
        ("a.txt", b"%PDF-1.4 nonsense", r"named \.txt, but its content is \.pdf\. Rename it"),
        ("a.html", b"PK\x03\x04", r"its content is a zip, as \.docx"),
        (
            "a.docx",
            b"\xd0\xcf\x11\xe0\xa1",
            r"an old Office file \(\.doc, \.xls, \.ppt\), or an encrypted one",
        ),
        ("a.docx", b"PK\x03\x04 nonsense", r"damaged, cannot be parsed \(BadZipFile"),
        ("a.docx", make_docx("<w:p>"), "damaged, cannot be parsed"),
        ("a.md", b"line\ncaf\xe9", r"not UTF-8 \(byte 0xe9 at 8, line 2\)\. Save it as UTF-8\."),
        ("a.docx", make_docx("", head="<!DOCTYPE x [<!ENTITY a 'b'>]>"), "document.xml declares a DOCTYPE"),
        ("a.docx", make_docx("", extra=[("word/x.bin", bytes(3_000_000))]), "looks like a zip bomb"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_the_reason(read, name, content, reason):
    with pytest.raises(DocumentError, match=rf"^{name.replace('.', '[.]')}: .*{reason}"):
        read(name, content)


def test_a_zip_that_is_no_word_document_is_refused(read):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("x.txt", "x")
    with pytest.raises(DocumentError, match=r"a zip without word/document\.xml"):
        read("a.docx", out.getvalue())


def test_sizes_are_limited(read):
    styles = random.Random(0).randbytes(2**17).hex() * 8
    limits = Limits(file_bytes=3 * 2**19, xml_bytes=2**20, chars=100, pages=1)
    with ParserProcess(limits) as parser:
        with pytest.raises(DocumentError, match=r"2 MB of text and layout inside; at most 1 MB are read"):
            read("a.docx", make_docx("", extra=[("word/styles.xml", styles)]), parser)
        with pytest.raises(DocumentError, match=r"2 MB; at most 1 MB"):
            read("a.txt", b"x" * 2**21, parser)
        for name in ("a.txt", "a.html"):
            with pytest.raises(DocumentError, match=r"gives more than 100 characters, .*\. Divide it\."):
                read(name, b"x" * 101, parser)
        with pytest.raises(DocumentError, match=r"2 pages; at most 1 are read"):
            read("a.pdf", make_pdf("x", "y"), parser)


def test_a_missing_document_is_not_found(tmp_path):
    with pytest.raises(NotFound, match=r"a\.txt: there is no such document"):
        read_document(tmp_path / "a.txt", tmp_path)


def test_a_folder_gives_documents_and_reasons_in_order(tmp_path):
    for name in ("b/z.txt", "a.txt", "b.md", ".hidden.txt", ".git/x.txt", "c.rtf", "~$lock.docx"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("# text")
    found = list(read_folder(tmp_path))
    assert [item.id for item in found] == ["a.txt", "b.md", "b/z.txt", "c.rtf"]
    assert all(isinstance(item, Document) for item in found[:3])
    assert isinstance(found[3], Unreadable)
    assert found[3].reason.startswith("files of type .rtf are not read")


def test_links_that_lead_out_of_the_folder_are_not_followed(tmp_path):
    secret, root = tmp_path / "secret.txt", tmp_path / "docs"
    secret.write_text("secret")
    root.mkdir()
    (root / "link.txt").symlink_to(secret)
    (root / "gone.txt").symlink_to(root / "nowhere.txt")
    (root / "real").mkdir()
    (root / "twice").symlink_to(root / "real")
    found = {item.id: item for item in read_folder(root)}
    assert found["link.txt"] == Unreadable("link.txt", "lies outside docs. Copy it into the folder.")
    assert isinstance(found["gone.txt"], Unreadable)
    assert found["twice"].reason.startswith("is a folder or a link to one.")


def test_a_missing_folder_is_not_found(tmp_path):
    with pytest.raises(NotFound, match="there is no such folder"):
        list(read_folder(tmp_path / "none"))


def test_joiners_stay_where_they_mean_something():
    assert clean_text("pass\u200cword") == "password"
    assert clean_text("می\u200cخواهم 👩\u200d🔧") == "می\u200cخواهم 👩\u200d🔧"
    assert clean_text("a\U000e0041\U000e0042b") == "ab"


@pytest.mark.parametrize(
    "line",
    ["# " + " " * 200_000 + "x", "# " + "# " * 100_000 + "x", "<a " * 50_000, "`" * 100_000, "<!--" * 50_000],
)
def test_hostile_lines_are_read_in_linear_time(read, line):
    begin = time.perf_counter()
    read("a.md", f"---\ntitle: {' ' * 100_000}x\n---\ntext\n{line}")
    assert time.perf_counter() - begin < 20
