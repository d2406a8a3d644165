"""Settings of connectors, as `--set` gives them: of the type that is named, or refused."""

import datetime as dt

import pytest

from tailorbird.errors import RecipeError
from tailorbird.plugins import part
from tailorbird.sources.setting_types import checked_settings

CONNECTORS = "tailorbird.connectors"


@pytest.mark.parametrize(
    ("kind", "place", "settings", "expected"),
    [
        ("object_storage", "s3://bucket/x", {"anonymous": "no"}, "anonymous is 'no'; expected true or false"),
        ("object_storage", "s3://bucket/x", {"anonymous": 1}, "anonymous is 1; expected true or false"),
        ("object_storage", "s3://bucket/x", {"include": 7.5}, "include is 7.5; expected str"),
        ("web_site", "https://a.example/", {"sitemaps": "off"}, "sitemaps is 'off'; expected true or false"),
        ("web_site", "https://a.example/", {"max_pages": "many"}, "max_pages is 'many'; expected int"),
        ("web_site", "https://a.example/", {"pause_s": "1 s"}, "pause_s is '1 s'; expected float"),
        ("web_pages", "https://a.example/", {"pause_s": True}, "pause_s is True; expected float"),
        ("wikipedia_dump", "a.xml", {"processes": "two"}, "processes is 'two'; expected int"),
        ("wikipedia_dump", "a.xml", {"namespaces": 0.5}, "namespaces is 0.5; expected int"),
        ("mcp_resources", "https://a.example/mcp", {"headers": "x"}, "headers is 'x'; expected Mapping"),
        ("sql", "shop.db", {"table": "t", "text": "t", "id": "i", "timeout_s": "1"}, "timeout_s is '1'"),
        ("git", ".", {"ref": True}, "ref is True; expected str"),
        ("folder", ".", {"label": 1.5}, "label is 1.5; expected str"),
        ("zim", "a.zim", {"label": ["a"]}, "label is ['a']; expected str"),
    ],
)
def test_a_setting_of_another_type_is_refused(kind, place, settings, expected):
    with pytest.raises(RecipeError) as caught:
        part(CONNECTORS, kind)(place, **settings)
    assert str(caught.value).startswith(f"connector {kind!r}: {expected}")


def test_whole_numbers_and_dates_are_texts_where_texts_are_expected(tmp_path):
    assert part(CONNECTORS, "folder")(str(tmp_path), label=1).name == "1"

    def make(place, *, ref: str = "", many: int | str = 0, on: bool = False, free=None):
        """Annotations that are no text."""

    given = {"ref": dt.date(2026, 1, 2), "many": 3, "on": True, "free": 1.5, "unknown": {}}
    assert checked_settings("connector 'x'", make, given) == {**given, "ref": "2026-01-02"}


def test_settings_that_fit_are_taken():
    site = part(CONNECTORS, "web_site")("https://a.example/", exclude=["/old/"], sitemaps=False, pause_s=2)
    assert (site.sitemaps, site.pause_s) == (False, 2.0)
    assert part(CONNECTORS, "wikipedia_dump")("a.xml", namespaces="0, 4").namespaces == (0, 4)
    assert checked_settings("connector 'x'", dict, {"a": 1}) == {"a": 1}
