"""Where a site is asked whether it is healthy: at the addresses where its visitors come."""

import copy
from typing import Any

import pytest

from ..modules import Modules
from .test_nginx_tree import a_site


def visits(**site: Any) -> list[dict[str, Any]]:
    values = {**copy.deepcopy(a_site()), "server_names": ["www.example.org"], **site}
    m = Modules(pillar={"nginx_uwsgi_django": {"sites": {"mysite": values}}})
    found: list[dict[str, Any]] = m.site_health.visits("mysite")
    return found


PAIR = {"certificate": "/etc/ssl/a.pem", "key": "/etc/ssl/a.key"}


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        (80, "http://127.0.0.1/"),
        (8080, "http://127.0.0.1:8080/"),
        ("80", "http://127.0.0.1/"),
        ("80 default_server", "http://127.0.0.1/"),
        ("*:80", "http://127.0.0.1/"),
        ("0.0.0.0:80 default_server", "http://127.0.0.1/"),
        ("[::]:80", "http://[::1]/"),
        ("[::]:8080 default_server", "http://[::1]:8080/"),
        ("[::1]:80", "http://[::1]/"),
        ("127.0.0.1:8080", "http://127.0.0.1:8080/"),
        ("10.1.2.3:80", "http://10.1.2.3/"),
        ("[fd00::5]:80 default_server", "http://[fd00::5]/"),
    ],
)
def test_each_form_of_listen_is_asked_where_it_listens(listen, url):
    assert [one["url"] for one in visits(listen=[listen])] == [url]
    encrypted = f"{listen}".replace("8080", "8443").replace("80", "443")
    found = visits(tls={**PAIR, "listen": [encrypted]})
    wanted = url.replace("http", "https").replace("8080", "8443")
    assert [one["url"] for one in found] == [wanted]


def test_every_address_is_asked():
    urls = [one["url"] for one in visits(listen=[80, "[::]:80", "10.1.2.3:8080"])]
    assert urls == ["http://127.0.0.1/", "http://[::1]/", "http://10.1.2.3:8080/"]


@pytest.mark.parametrize(
    ("more", "urls"),
    [
        ({}, ["https://127.0.0.1/"]),
        ({"tls": {**PAIR, "redirect": False}}, ["https://127.0.0.1/", "http://127.0.0.1/"]),
        (
            {"load_balancer": {"addresses": ["192.0.2.1"]}},
            ["https://127.0.0.1/", "http://127.0.0.1/"],
        ),
    ],
)
def test_plain_http_is_asked_where_visitors_are_served_by_it(more, urls):
    found = visits(**{"tls": PAIR, **more})
    assert [one["url"] for one in found] == urls
    assert all(one["secure_ports"] == [443] for one in found)


def test_a_load_balancer_is_asked_for_where_the_host_is_one_of_its_addresses():
    (one,) = visits(load_balancer={"addresses": ["127.0.0.0/8"]}, listen=[8080])
    assert one["headers"] == {"X-Forwarded-Proto": "https"}
    assert (one["source"], one["secure"], one["balanced"]) == ("127.0.0.1", True, True)
    (one,) = visits(load_balancer={"addresses": ["192.0.2.1"]}, listen=[8080])
    assert ("source" in one, one["secure"], one["balanced"]) == (False, False, True)


def test_a_site_that_is_closed_has_the_answers_that_mean_it():
    hash_ = "$6$saltsalt$" + "x" * 86
    (one,) = visits(
        maintenance={"retry_after": 77}, basic_auth={"realm": "Staging", "users": {"ann": hash_}}
    )
    told = [(row["status"], row["header"], row["value"]) for row in one["closed"]]
    assert told == [
        (503, "retry-after", "77"),
        (401, "www-authenticate", 'Basic realm="Staging"'),
    ]
    assert visits()[0]["closed"] == []
