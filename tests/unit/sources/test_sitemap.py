import pytest

from tailorbird.errors import DocumentError
from tailorbird.sources.sitemap import MAX_PLACES, read_sitemap

NAMESPACE = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"'
IMAGES = 'xmlns:image="http://www.google.com/schemas/sitemap-image/1.1"'


def test_pages_and_further_sitemaps_are_told_apart():
    pages = f"""<?xml version="1.0" encoding="UTF-8"?>
    <urlset {NAMESPACE} {IMAGES}><!-- two -->
      <url><loc> http://a.example/?a=1&amp;b=2
      </loc><lastmod>2026-01-01</lastmod><image:image><image:loc>http://a.example/x.png</image:loc></image:image></url>
      <url><loc>http://a.example/<![CDATA[b]]></loc></url>
      <loc>http://a.example/stray</loc>
    </urlset>"""
    assert read_sitemap(pages.encode()) == (["http://a.example/?a=1&b=2", "http://a.example/b"], [])
    index = (
        f"<sitemapindex {NAMESPACE}><sitemap><loc>http://a.example/1.xml.gz</loc></sitemap></sitemapindex>"
    )
    assert read_sitemap(index.encode()) == ([], ["http://a.example/1.xml.gz"])
    assert read_sitemap(b"<urlset></urlset>") == ([], [])
    assert read_sitemap("<urlset><url><loc>ä</loc></url></urlset>".encode("utf-16")) == (["ä"], [])


BOMB = (
    '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9))
    + "]><urlset><url><loc>&j;</loc></url></urlset>"
)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"is no sitemap \(no element found.*Expected XML as sitemaps.org"),
        (b"<urlset><url></urlset>", r"is no sitemap \(mismatched tag"),
        (b"<html><body>none</body></html>", "is no sitemap. Got <html>, expected <urlset> or <sitemapindex>"),
        (b'<?xml version="1.0" encoding="nonsense"?><urlset/>', "is no sitemap"),
        (BOMB.encode(), "declares a DOCTYPE, which no sitemap needs"),
        (BOMB.encode("utf-16"), "declares a DOCTYPE"),
        (b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><urlset/>', "declares a DOCTYPE"),
        (
            b"<urlset>" + b"<url><loc>/</loc></url>" * (MAX_PLACES + 1),
            "lists more than 50,000 addresses. Divide it",
        ),
    ],
)
def test_what_is_no_sitemap_is_refused(data, message):
    with pytest.raises(DocumentError, match=message):
        read_sitemap(data)
