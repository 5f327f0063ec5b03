"""Which answer to a visitor's request means that a site is healthy."""

import contextlib
import http.server
import threading
from typing import Any

import pytest

from _modules import site_visit

NAME = "www.example.org"


def visit(url: str = "http://127.0.0.1/", **other: Any) -> dict[str, Any]:
    made = {
        "url": url,
        "host": NAME,
        "timeout": 5,
        "status": [200, 301, 302],
        "names": [NAME, "example.org"],
        "secure_ports": [],
        "balanced": False,
        "secure": url.startswith("https"),
        "closed": [],
    }
    return {**made, **other}


TLS = {"secure_ports": [443]}
ODD = {"secure_ports": [8443]}
PROXY = {"balanced": True}


@pytest.mark.parametrize(
    ("url", "location", "more"),
    [
        # An application's own answers.
        ("http://127.0.0.1/", "/login/", {}),
        ("http://127.0.0.1/", "http://www.example.org/de/", {}),
        ("http://127.0.0.1/", "https://login.example.net/", {}),
        ("https://127.0.0.1/", f"https://{NAME}/login/", TLS),
        # The step to the site's own HTTPS, where it is spoken.
        ("http://127.0.0.1/", f"https://{NAME}/", TLS),
        ("http://127.0.0.1:8080/", f"https://{NAME}:8443/", ODD),
        ("http://127.0.0.1:8080/", f"https://{NAME}/", PROXY),
        # A cookie makes the second request another one.
        ("http://127.0.0.1/", "/", {"cookie": True}),
    ],
)
def test_a_redirect_that_leads_on_is_healthy(url, location, more):
    more = dict(more)
    headers = {"location": location}
    if more.pop("cookie", None):
        headers["set-cookie"] = "a=b"
    assert site_visit.fault(visit(url, **more), 302, headers) is None


@pytest.mark.parametrize(
    ("url", "location", "more", "words"),
    [
        ("http://127.0.0.1/", f"https://{NAME}/", {}, "neither nginx (tls) nor a load balancer"),
        ("http://127.0.0.1/", "https://example.org/", {}, "neither nginx (tls)"),
        ("http://127.0.0.1:8080/", f"https://{NAME}:8080/", {}, "neither nginx (tls)"),
        ("http://127.0.0.1/", f"https://{NAME}/", ODD, "on port 8443 alone"),
        ("https://127.0.0.1/", f"https://{NAME}/", TLS, "is redirected to itself"),
        ("http://10.0.0.5/", f"https://{NAME}/", {**PROXY, "secure": True}, "to itself"),
        ("http://127.0.0.1/", f"https://{NAME}:x/", {}, "not an address"),
    ],
)
def test_a_redirect_that_leads_nowhere_is_told_with_its_target(url, location, more, words):
    why = site_visit.fault(visit(url, **more), 301, {"location": location})
    assert why and words in why and location in why


def test_the_step_to_https_is_healthy_whatever_statuses_the_pillar_has():
    asked = visit(status=[200], **TLS)
    assert site_visit.fault(asked, 301, {"location": f"https://{NAME}/"}) is None
    assert site_visit.fault(asked, 301, {"location": "/login/"}) == (
        "is answered with 301, not one of 200"
    )


MAINTENANCE = {"status": 503, "header": "retry-after", "value": "600", "means": "closed"}


def test_a_503_that_the_pillar_wants_is_told_from_a_broken_one():
    asked = visit(closed=[MAINTENANCE])
    assert site_visit.fault(asked, 503, {"retry-after": "600"}) is None
    for headers in ({}, {"retry-after": "5"}):
        assert "answered with 503" in (site_visit.fault(asked, 503, headers) or "")
    assert "answered with 503" in (site_visit.fault(visit(), 503, {"retry-after": "600"}) or "")


OURS = {"proof": {"server": NAME, "generations": ["0a1b2c3d4e5f"]}}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (None, "another server than the one that nginx has for the site"),
        ("b.example.org; generation=; upstream=", "the server of b.example.org"),
        (f"{NAME}; generation=; upstream=200", "no uWSGI generation of the site"),
        (
            f"{NAME}; generation=ffffffffffff; upstream=200",
            "generation ffffffffffff, and systemd runs 0a1b2c3d4e5f",
        ),
        (f"{NAME}; generation=0a1b2c3d4e5f; upstream=200", None),
        # nginx's own answer: a static page, or a redirect of the pillar.
        (f"{NAME}; generation=; upstream=", None),
    ],
)
def test_a_good_answer_counts_if_the_site_gave_it(said, words):
    headers = {"x-nginx-uwsgi-django": said} if said else {}
    why = site_visit.fault(visit(**OURS), 200, headers)
    assert (why is None) if words is None else why and words in why
    # An answer that is wrong in itself is told as that.
    assert "500" in str(site_visit.fault(visit(**OURS), 500, headers))
    assert site_visit.fault(visit(), 200, headers) is None


def test_a_generation_from_before_does_not_name_itself():
    asked = visit(proof={"server": NAME, "generations": None})
    headers = {"x-nginx-uwsgi-django": f"{NAME}; generation=; upstream=200"}
    assert site_visit.fault(asked, 200, headers) is None


@contextlib.contextmanager
def serving(status: int, **headers: str) -> Any:
    class Handler(http.server.BaseHTTPRequestHandler):
        hosts: list[str] = []

        def do_GET(self) -> None:
            self.hosts.append(self.headers["Host"])
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1], Handler.hosts
    finally:
        server.shutdown()
        server.server_close()


def test_a_visitor_names_the_port_that_is_not_the_usual_one():
    with serving(200) as (port, hosts):
        url = f"http://127.0.0.1:{port}/health/?a=b"
        answers = site_visit.together([visit(url), visit(url, **PROXY)])
    assert [answer["healthy"] for answer in answers] == [True, True]
    assert sorted(hosts) == [NAME, f"{NAME}:{port}"]


def test_no_answer_is_a_sentence():
    with serving(200) as (port, _):
        pass
    (answer,) = site_visit.together([visit(f"http://127.0.0.1:{port}/")], patience=3)
    assert (answer["healthy"], answer["status"]) == (False, None)
    assert answer["why"] == "has no answer: [Errno 111] Connection refused"


def test_a_watcher_asks_in_turn():
    with serving(500) as (port, hosts):
        turns = [visit(f"http://127.0.0.1:{port}/"), visit(f"http://127.0.0.1:{port}/", **PROXY)]
        (answers,) = site_visit.watch([turns], 0.5)
    assert len(answers) >= 2 and not any(answer["healthy"] for answer in answers)
    assert hosts[:2] == [f"{NAME}:{port}", NAME]
