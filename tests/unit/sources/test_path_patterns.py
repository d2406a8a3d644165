"""Patterns of paths: what they choose."""

import pytest

from tailorbird.errors import RecipeError
from tailorbird.sources.path_patterns import chooses


@pytest.mark.parametrize(
    ("pattern", "path", "is_meant"),
    [
        ("*.md", "a.md", True),
        ("*.md", "docs/deep/a.md", True),
        ("*.md", "a.mdx", False),
        ("docs/*.md", "docs/a.md", True),
        ("docs/*.md", "docs/x/a.md", False),
        ("docs/**/*.md", "docs/a.md", True),
        ("docs/**/*.md", "docs/x/y/a.md", True),
        ("docs/**", "docs/x/a", True),
        ("docs/", "docs/x/a", True),
        ("docs/", "other/docs/x", False),
        ("/docs/a.md", "docs/a.md", True),
        ("a?.md", "ab.md", True),
        ("a?.md", "a/.md", False),
        ("**/old/**", "x/old/y/z", True),
        ("a[1].(x)+", "a[1].(x)+", True),
        ("a.md", "axmd", False),
        ("*", "a\nb", True),
    ],
)
def test_patterns_choose_paths(pattern, path, is_meant):
    assert chooses([pattern], [])(path) is is_meant
    assert chooses([], [pattern])(path) is not is_meant


def test_without_patterns_all_are_meant():
    assert chooses([], [])("a/b.md")


@pytest.mark.parametrize("pattern", ["", "/", "x" * 501])
def test_patterns_that_name_nothing_are_refused(pattern):
    with pytest.raises(RecipeError, match=r"^pattern .* expected one to 500 characters that name files"):
        chooses([pattern], [])


def test_a_pattern_of_many_stars_takes_no_time():
    assert not chooses(["*a" * 12 + "b"], [])("a" * 40)
    assert not chooses(["**" * 100 + "b"], [])("a/" * 2_000)
