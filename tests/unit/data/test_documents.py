"""Documents: every kind is read, and every refusal says why."""

import io
import random
import time
import zipfile

import pytest

from tailorbird.data import documents
from tailorbird.data.documents import Unreadable, clean_text, first_heading, read_document, read_folder
from tailorbird.errors import DocumentError, NotFound
from tailorbird.records import Document


def make_pdf(*pages, trailer=b"", title=None):
    """A PDF with one line of text a page, written by hand."""
    kids = " ".join(f"{3 + 2 * i} 0 R" for i in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
    ]
    font = b"<< /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >>"
    for i, text in enumerate(pages):
        stream = f"BT /F1 12 Tf 20 100 Td ({text}) Tj ET".encode() if text else b""
        contents = f"{4 + 2 * i} 0 R".encode()
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 200] /Resources "
            + font
            + b" /Contents "
            + contents
            + b" >>"
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
    if title:
        objects.append(f"<< /Title ({title}) >>".encode())
        trailer += b" /Info %d 0 R" % len(objects)
    out, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    xref = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"trailer\n<< /Size %d /Root 1 0 R%s >>\nstartxref\n%d\n%%%%EOF\n" % (
        len(objects) + 1,
        trailer,
        xref,
    )
    return out


ENCRYPTED = b" /Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O <%s> /U <%s> >> /ID [<00> <00>]" % (
    b"ab" * 32,
    b"cd" * 32,
)

CONTENT_TYPES = (
    '<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Override PartName="/word/document.xml" '
    'ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>'
)
RELS = (
    '<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Id="rId1" Target="word/document.xml" '
    'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"/></Relationships>'
)
WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def paragraph(text, style=None):
    properties = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{properties}<w:r><w:t>{text}</w:t></w:r></w:p>"


def make_docx(body, extra=(), head='<?xml version="1.0"?>'):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", CONTENT_TYPES)
        archive.writestr("_rels/.rels", RELS)
        archive.writestr(
            "word/document.xml", f'{head}<w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>'
        )
        for name, data in extra:
            archive.writestr(name, data)
    return out.getvalue()


@pytest.fixture
def read(tmp_path):
    def read(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_document(path, tmp_path)

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
        ("a.xlsx", b"x", r"files of type \.xlsx are not read; expected \.txt, \.md"),
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
        ("a.html", b"PK\x03\x04", r"its content is \.docx or another zip"),
        ("a.docx", b"\xd0\xcf\x11\xe0\xa1", r"an old Office file \(\.doc\), or an encrypted one"),
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


def test_sizes_are_limited(read, monkeypatch):
    monkeypatch.setattr(documents, "MAX_XML_BYTES", 2**20)
    with pytest.raises(DocumentError, match=r"2 MB of text and layout inside; at most 1 MB are read"):
        read(
            "a.docx", make_docx("", extra=[("word/styles.xml", random.Random(0).randbytes(2**17).hex() * 8)])
        )
    monkeypatch.setattr(documents, "MAX_BYTES", 2**20)
    monkeypatch.setattr(documents, "MAX_CHARS", 100)
    monkeypatch.setattr(documents, "MAX_PAGES", 1)
    with pytest.raises(DocumentError, match=r"2 MB; at most 1 MB are read"):
        read("a.txt", b"x" * 2**21)
    with pytest.raises(DocumentError, match=r"101 characters; at most 100 are read\. Divide it\."):
        read("a.txt", b"x" * 101)
    with pytest.raises(DocumentError, match=r"2 pages; at most 1 are read"):
        read("a.pdf", make_pdf("x", "y"))


def test_a_missing_document_is_not_found(tmp_path):
    with pytest.raises(NotFound, match=r"a\.txt: there is no such document"):
        read_document(tmp_path / "a.txt", tmp_path)


def test_a_folder_gives_documents_and_reasons_in_order(tmp_path):
    for name in ("b/z.txt", "a.txt", "b.md", ".hidden.txt", ".git/x.txt", "c.csv", "~$lock.docx"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("# text")
    found = list(read_folder(tmp_path))
    assert [item.id for item in found] == ["a.txt", "b.md", "b/z.txt", "c.csv"]
    assert all(isinstance(item, Document) for item in found[:3])
    assert isinstance(found[3], Unreadable)
    assert found[3].reason.startswith("files of type .csv are not read")


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
    assert time.perf_counter() - begin < 2
