"""Where webhooks may be sent: public addresses over HTTPS, and what the operator allows."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from herder.errors import InvalidWebhook
from herder.webhooks.addresses import Rules, parse_networks

STRICT = Rules()

REFUSED = [
    "0.0.0.0", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.254",
    "169.254.169.254", "172.16.0.1",
    "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1",
    "198.51.100.1", "203.0.113.1",
    "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:8.8.8.8", "::7f00:1",
    "64:ff9b::7f00:1", "64:ff9b::808:808",
    "64:ff9b:1::a00:1", "100::1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd12:3456::1",
    "ff02::1", "2001::1",
    "2001:db8::1", "2002:7f00:1::", "2002:808:808::", "3fff::1", "5f00::1", "4000::1",
]  # fmt: skip
PUBLIC = [
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0",
    "126.255.255.255", "128.0.0.0",
    "169.253.255.255", "172.15.255.255", "172.32.0.0", "192.167.255.255", "192.169.0.0",
    "223.255.255.255",
    "2001:4860:4860::8888", "2606:4700:4700::1111", "2a00:1450:4001:812::200e",
]  # fmt: skip


@pytest.mark.parametrize("address", REFUSED)
def test_what_is_not_public_is_not_reached(address):
    assert not STRICT.may_reach(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public_is_reached(address):
    assert STRICT.may_reach(address)


def test_whatever_python_takes_for_not_global_is_not_reached_either():
    chance = random.Random(7)
    seen = 0
    for _ in range(20_000):
        four = IPv4Address(chance.getrandbits(32))
        six = IPv6Address(chance.getrandbits(128) >> chance.choice((0, 0, 2, 3, 96)))
        for address in (four, six):
            if not address.is_global or address.is_multicast or address.is_reserved:
                seen += 1
                assert not STRICT.may_reach(str(address)), address
    assert seen > 5000


@pytest.mark.parametrize("text", ["", "localhost", "127.1", "0x7f.1", "2130706433", "1.1.1.1/32"])
def test_what_is_no_numeric_address_is_not_reached(text):
    assert not STRICT.may_reach(text)


def test_an_operator_allows_networks_and_no_others():
    rules = Rules(parse_networks("10.1.0.0/16, 127.0.0.1, fd00::/8"))
    assert rules.may_reach("10.1.2.3")
    assert rules.may_reach("127.0.0.1")
    assert rules.may_reach("fd00::5")
    assert rules.may_reach("8.8.8.8")
    assert not rules.may_reach("10.2.0.1")
    assert not rules.may_reach("127.0.0.2")
    # An address inside another is another.
    assert not rules.may_reach("::ffff:127.0.0.1")
    assert rules.refused(["10.1.0.1", "10.2.0.1", "8.8.8.8"]) == ["10.2.0.1"]
    with pytest.raises(ValueError, match="x"):
        parse_networks("10.0.0.0/8,x")


URLS = {
    "https://ada.example": ("https", "ada.example", 443, "/", "ada.example"),
    "https://Ada.example:8443/a/b?c=d%20e": (
        "https", "ada.example", 8443, "/a/b?c=d%20e", "ada.example:8443",
    ),
    "https://ada.example:80/": ("https", "ada.example", 80, "/", "ada.example:80"),
    "https://[2606:4700::1]/x": ("https", "2606:4700::1", 443, "/x", "[2606:4700::1]"),
    "https://8.8.8.8/": ("https", "8.8.8.8", 443, "/", "8.8.8.8"),
    "https://ada.example?x": ("https", "ada.example", 443, "/?x", "ada.example"),
}  # fmt: skip


@pytest.mark.parametrize("url", URLS)
def test_an_address_is_read_once_and_for_all(url):
    found = STRICT.parse(url)
    assert (found.scheme, found.host, found.port, found.path, found.authority) == URLS[url]


BAD = [
    None, 7, "", "ada.example", "ftp://ada.example/", "https:///path", "https://", "file:///etc",
    "http://ada.example/", "https://ada@ada.example/", "https://ada:pw@ada.example/",
    "https://1.1.1.1@127.0.0.1/", "https://ada.example:22/", "https://ada.example:0/",
    "https://ada.example:70000/", "https://ada.example:x/", "https://ada.example/#part",
    "https://ada.example\\@127.0.0.1/", "https://ada .example/", "https://ada.example/\n",
    "https://münchen.example/", "https://127.0.0.1/", "https://[::1]/", "https://[::ffff:8.8.8.8]/",
    "https://169.254.169.254/latest", "https://[fe80::1%25eth0]/", "https://-a.example/",
    "https://a..example/", "https://" + "a" * 64 + ".example/",
    "https://" + "a." * 150 + "example/",
    "https://ada.example/" + "x" * 2048, "https://ada%2eexample/",
]  # fmt: skip


@pytest.mark.parametrize("url", BAD, ids=lambda url: str(url)[:40])
def test_an_address_that_could_mean_two_things_is_none(url):
    with pytest.raises(InvalidWebhook):
        STRICT.parse(url)


def test_plain_http_is_for_those_who_allow_it():
    assert Rules(http=True).parse("http://ada.example/x").port == 80
    with pytest.raises(InvalidWebhook, match="not public"):
        Rules(http=True).parse("http://127.0.0.1:8080/")
    assert ip_address(Rules(parse_networks("::1"), True).parse("http://[::1]:8080/").host)
