import sqlite3
from contextlib import closing

from hypothesis import given
from hypothesis import strategies as st

from tailorbird.sources.keywords import MAX_TERMS, match_any


def test_the_operators_of_full_text_search_are_words():
    assert match_any('x"b NEAR(c) -d* AND {e}:f') == '"x" OR "b" OR "near" OR "c" OR "d" OR "e" OR "f"'


def test_words_that_tell_nothing_are_left_out_unless_there_is_nothing_else():
    assert match_any("Where is the card?") == '"card"'
    assert match_any("To be or not to be") == '"to" OR "be" OR "or" OR "not"'


def test_repeats_and_the_rest_of_a_very_long_question_are_left_out():
    assert match_any("card Card CARD") == '"card"'
    assert match_any(" ".join(f"w{n}" for n in range(1000))).count(" OR ") == MAX_TERMS - 1


def test_a_text_without_words_gives_nothing():
    assert match_any("?! _ 🦜") == ""


@given(st.text(alphabet=st.characters(), max_size=200))
def test_every_expression_is_well_formed(text):
    expression = match_any(text)
    if expression:
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.execute("CREATE VIRTUAL TABLE t USING fts5 (text)")
            connection.execute("SELECT * FROM t WHERE t MATCH ?", (expression,)).fetchall()
