"""Wikitext: what a reader of the page sees as text stays, what is for the wiki goes."""

import pytest

from tailorbird.data.documents import read_document
from tailorbird.data.parser_process import ParserProcess
from tailorbird.data.readers.content import Limits
from tailorbird.data.readers.wikitext import read_wikitext
from tailorbird.errors import DocumentError


def read(text):
    return read_wikitext(text.encode(), Limits()).text


def test_headings_and_paragraphs_keep_their_order():
    assert read(
        "'''Oslo''' is ''the'' capital.\n== History ==\nOld.\n=== 1624 ===\nFire.\n== Sport ==\nSki."
    ) == ("Oslo is the capital.\n\n## History\n\nOld.\n\n### 1624\n\nFire.\n\n## Sport\n\nSki.")


def test_headings_with_nothing_beneath_them_go():
    text = "Text.\n== See also ==\n{{portal}}\n== Notes ==\n=== A ===\n<ref>x</ref>\n== Kept ==\n=== Inner ===\nYes."
    assert read(text) == "Text.\n\n## Kept\n\n### Inner\n\nYes."


def test_links_are_read_by_their_words():
    assert read("[[Oslo]], [[Oslo|the capital]], [[Norway#North|north]], [[:Category:X]]") == (
        "Oslo, the capital, north, Category:X"
    )
    assert read("[http://a.example The site] and http://b.example/c and [http://d.example]x") == (
        "The site and http://b.example/c and x"
    )


def test_files_categories_and_other_languages_show_no_words():
    assert read(
        "[[File:a.jpg|thumb|A [[red]] house, ''old'']]Text[[Category:Cities]][[de:Oslo]][[zh-yue:X]]"
    ) == ("Text")
    assert read("[[wikt:oslo|the word]]") == "the word"


def test_comments_references_and_templates_go():
    assert read(
        'A<!-- no\n{{x --> B<ref name="a">{{cite}} c</ref><ref name="a" /> C{{Infobox|a={{b|c}}|d=[[e]]}}.'
    ) == ("A B C.")
    assert read("Left {{open\n\nNext }} one.<ref>never closed") == "Left one.never closed"
    assert read("Left {{open, and the text stays.") == "Left open, and the text stays."


def test_templates_that_dress_words_up_show_them():
    assert read(
        "{{lang|de|Haus}}, {{lang-fr|maison}}, {{nowrap|a {{small|b}}}}, {{convert|5|to|10|km|mi|abbr=1}}"
    ) == ("Haus, maison, a b, 5 to 10 km")
    assert read("{{convert|5|km|mi}}, {{circa|1066}}, {{frac|1|2}}, {{lang|de|[[Haus|Häuser]]}}") == (
        "5 km, c. 1066, 1/2, Häuser"
    )


def test_brackets_left_empty_by_templates_go():
    assert read("Oslo ({{IPA|no}}; {{audio|x}}) is ({{x}}, old) here.") == "Oslo is (old) here."


def test_lists_keep_their_levels():
    assert read("* a\n** b\n*# c\n: aside\n; term\n* [[d|D]]") == "- a\n  - b\n  - c\naside\nterm\n- D"


def test_tables_are_rows_under_their_header():
    text = """{| class="wikitable"
|+ Fees in ''euros''
! Card !! Fee
|-
| Gold || 9 {{x}}
|-
| [[Silver]]<br>old
| a|b
|}"""
    assert read(text) == "Fees in euros\n\n| Card | Fee |\n| --- | --- |\n| Gold | 9 |\n| Silver old | b |"


def test_cells_over_several_rows_and_columns_are_said_in_each_row():
    text = """{|
! colspan=2 | Who !! Year
|-
| rowspan=2 | A || x || 1
|-
| y || 2
|-
| rowspan="2" | B
|-
| z || 3
|}"""
    assert read(text).splitlines()[2:] == ["| A | x | 1 |", "| A | y | 2 |", "| B | z | 3 |"]


def test_attributes_whose_words_a_template_gave_are_no_words():
    text = '{|\n! a !! b !! c\n|-\n| colspan="2" {{yes}} || style=x:0/{{no}}\n|}'
    assert read(text).splitlines()[2:] == []
    assert read(text.replace("{{no}}", "{{no}} | 1")).splitlines()[2:] == ["|  |  | 1 |"]


def test_a_table_of_one_column_is_just_lines():
    assert read("{|\n|-\n| one\n|-\n| two\n|}") == "one\ntwo"


def test_a_table_in_a_table_is_in_its_cell():
    assert (
        read("{|\n! a !! b\n|-\n| 1\n|\n{|\n| c\n| d\n|}\n|}").splitlines()[2]
        == "| 1 | / c / d / / --- / --- / |"
    )


def test_code_formulas_and_nowiki_are_kept_as_they_are():
    assert read('<syntaxhighlight lang="c">\nint a[2] = {{1}, {2}};\n</syntaxhighlight>') == (
        "```c\nint a[2] = {{1}, {2}};\n```"
    )
    assert read("<math>a_{b^{2}}</math> and <nowiki>[[x]] {{y}}</nowiki> and <code>''z''</code>") == (
        "a_{b^{2}} and [[x]] {{y}} and z"
    )


def test_entities_and_switches():
    assert read("__NOTOC__A &amp; B&nbsp;C &#8211; &bogus; __init__") == "A & B C – &bogus; __init__"


def test_hidden_text_goes():
    assert (
        read("A<span style='display:none'>ignore all rules</span> B<div hidden>x</div> C\u200bD") == "A B CD"
    )


def test_marks_of_ours_in_the_text_are_no_marks():
    assert read("\ue0000\ue001 a\ue002b") == "0 ab"


def test_files_of_wikitext_are_read_in_folders(tmp_path):
    (tmp_path / "Oslo.wikitext").write_text("'''Oslo''' {{x}}.\n== A ==\nB")
    document = read_document(tmp_path / "Oslo.wikitext", tmp_path)
    assert (document.text, document.title) == ("Oslo .\n\n## A\n\nB", "Oslo")


def test_what_is_too_long_is_refused():
    with pytest.raises(
        DocumentError, match=r"^has 5,000,000 characters of wikitext; at most 4,000,000 are read\."
    ):
        read("x" * 5_000_000)


CHEAP = {
    "templates": "{{" * 50_000 + "a" + "}}" * 50_000,
    "open templates": "{{nowrap|" * 50_000,
    "links": "[[a|" * 50_000 + "]]" * 50_000,
    "elements": "<div>" * 2_000 + "</div>" * 2_000,
    "references": "<ref>" * 100_000 + "</ref>",
    "comments": "<!--" * 100_000,
    "spans": "{|\n" + "|-\n| colspan=999 rowspan=99999 | x\n" * 200 + "|}",
    "marks": "*#:;" * 100_000,
}
COSTLY = {
    "tables": "\n{|\n|-\n|" * 100_000,
    "elements": "<b>" * 100_000,
}


def test_what_is_nested_or_left_open_takes_little_time():
    with ParserProcess(Limits(cpu_s=10, wall_s=60)) as parser:
        for name, text in CHEAP.items():
            assert len(parser.read(text.encode(), ".wikitext").text) <= len(text), name


@pytest.mark.parametrize("name", COSTLY)
def test_what_the_parser_hangs_on_is_refused_and_the_next_page_read(name):
    with ParserProcess(Limits(cpu_s=0.5, wall_s=60)) as parser:
        with pytest.raises(DocumentError, match="of computing, the most that one file is given"):
            parser.read(COSTLY[name].encode(), ".wikitext")
        assert parser.read(b"''next''", ".wikitext").text == "next"
