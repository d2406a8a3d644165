"""Web addresses have one form, and network addresses are public only where all programs agree."""

import pytest

from tailorbird.errors import DocumentError
from tailorbird.sources.addresses import is_public, is_reachable, joined, read_address, read_allowed


@pytest.mark.parametrize(
    ("written", "form"),
    [
        ("HTTP://Example.COM", "http://example.com/"),
        ("http://example.com.", "http://example.com/"),
        ("http://example.com:80/a#b", "http://example.com/a"),
        ("https://example.com:443/?", "https://example.com/"),
        ("https://example.com:80/", "https://example.com:80/"),
        ("http://example.com/a/./b/../c", "http://example.com/a/c"),
        ("http://example.com/../../a", "http://example.com/a"),
        ("http://example.com/a/..", "http://example.com/"),
        ("http://example.com/%7euser/%c3%a4?q=%2f", "http://example.com/~user/%C3%A4?q=%2F"),
        ("http://example.com/ä b?q=ü%", "http://example.com/%C3%A4%20b?q=%C3%BC%25"),
        ("http://example.com?q#f", "http://example.com/?q"),
        ("http://münchen.example/", "http://xn--mnchen-3ya.example/"),
        ("http://ｅｘａｍｐｌｅ。com/", "http://example.com/"),
        ("http://[2001:0DB8::0001]:8080/", "http://[2001:db8::1]:8080/"),
        ("http://192.0.2.1/", "http://192.0.2.1/"),
        ("http://a_b.example/", "http://a_b.example/"),
    ],
)
def test_an_address_has_one_form(written, form):
    assert read_address(written).url == form
    assert read_address(form).url == form


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("example.com", "is no web address. Expected http:// or https://"),
        ("ftp://example.com/", "is no web address"),
        ("file:///etc/passwd", "is no web address"),
        ("http:/example.com", "is no web address"),
        ("http:///path", "names no valid host: got ''"),
        ("http://user:secret@example.com/", r"'http://…@example.com/' holds credentials"),
        ("http://example.com\\@evil.example/", "control character or a backslash"),
        ("http://example.com/\r\nHost: x", "control character or a backslash"),
        ("http://example.com:99999/", "port from 1 to 65535"),
        ("http://example.com:0/", "port from 1 to 65535"),
        ("http://example.com:1:2/", "port from 1 to 65535"),
        ("http://exa mple.com/", "names no valid host"),
        ("http://exa%6dple.com/", "names no valid host"),
        ("http://-a.example/", "names no valid host"),
        ("http://a..example/", "names no valid host"),
        ("http://example.com../", "names no valid host"),
        (f"http://{'a' * 64}.example/", "names no valid host"),
        ("http://a\u200b\u2488.example/", "names no valid host"),
        ("http://127.1/", "four decimal numbers"),
        ("http://2130706433/", "four decimal numbers"),
        ("http://0177.0.0.1/", "four decimal numbers"),
        ("http://a.0x7f/", "four decimal numbers"),
        ("http://[::1%25lo]/", "no valid IPv6 address: it names a zone"),
        ("http://[::g]/", "no valid IPv6 address"),
        ("http://[::1/", "names no host with a port"),
        ("http://example.com/" + "a" * 9000, "has 9,019 characters; expected at most 8,192"),
    ],
)
def test_what_programs_read_in_different_ways_is_refused(written, message):
    with pytest.raises(DocumentError, match=message):
        read_address(written)


def test_credentials_are_not_repeated():
    with pytest.raises(DocumentError) as told:
        read_address("http://user:secret@example.com/")
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    ("reference", "form"),
    [
        ("c", "http://example.com/a/c"),
        ("../c?q#f", "http://example.com/c?q"),
        ("//other.example/x", "http://other.example/x"),
        ("", "http://example.com/a/b"),
    ],
)
def test_a_reference_is_read_at_its_page(reference, form):
    assert joined(read_address("http://example.com/a/b"), reference).url == form


@pytest.mark.parametrize(
    "reference", ["javascript:alert(1)", "mailto:a@b.example", "http://[", "//u:p@x/", "/\\x"]
)
def test_a_reference_that_is_no_web_address_is_refused(reference):
    with pytest.raises(DocumentError):
        joined(read_address("http://example.com/a/b"), reference)


def test_allowed_hosts_are_read_as_addresses_are():
    assert read_allowed("Wiki.Example.") == ("wiki.example", None)
    assert read_allowed("[FD00::1]:8080") == ("fd00::1", 8080)
    with pytest.raises(DocumentError, match="names no valid host"):
        read_allowed("wiki.example/path")


PUBLIC = [
    "8.8.8.8",
    "93.184.216.34",
    "2606:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2001:4860:4860::8888",
]
PRIVATE = [
    "10.0.0.1",
    "172.16.5.4",
    "192.168.1.1",
    "127.0.0.1",
    "127.8.8.8",
    "100.64.0.1",
    "::1",
    "fd00::1",
    "fc00::1",
]
NOWHERE = [
    "0.0.0.0",
    "0.1.2.3",
    "169.254.169.254",
    "224.0.0.1",
    "239.1.1.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "ff02::1",
    "ff0e::1",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "",
    "no address",
]  # fmt: skip
SPECIAL = [
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "fec0::1",
    "::7f00:1",
    "::ffff:0:127.0.0.1",
    "64:ff9b:1::808:808",
    "2002:7f00:1::",
    "2002:808:808::",
    "2001::1",
    "2001:0:808:808::",
    "2001:db8::1",
    "3fff::1",
    "5f00::1",
    "100::1",
    "2606:4700::1111%eth0",
]
HIDDEN_PRIVATE = ["::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1"]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_public(address):
    assert is_public(address)
    assert is_reachable(address)


@pytest.mark.parametrize("address", [*PRIVATE, *NOWHERE, *SPECIAL, *HIDDEN_PRIVATE])
def test_all_others_are_not(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", [*PRIVATE, *HIDDEN_PRIVATE])
def test_allowed_hosts_may_be_on_a_private_network(address):
    assert is_reachable(address)


@pytest.mark.parametrize("address", NOWHERE)
def test_no_host_may_be_where_clouds_keep_credentials_or_nowhere(address):
    assert not is_reachable(address)
