"""What each feature is in nginx's language: the whole tree, as crossplane reads it, which nobody here wrote."""

import pathlib
from typing import Any

import crossplane
import pytest

from .test_nginx_site import modules

HASH = "$6$saltsalt$" + "a" * 86
NGINX = {
    "log_formats": {"timed": {"format": "$remote_addr $request_time"}},
    "timeouts": {"keepalive": 20},
}

HEAD = [
    ["listen", "80"],
    ["server_name", "*.compute.amazonaws.com"],
    ["charset", "utf-8"],
    ["client_max_body_size", "128M"],
    ["keepalive_timeout", "20s"],
]
NOSNIFF = ["add_header", "X-Content-Type-Options", "nosniff", "always"]
PROOF = ["add_header", "X-Nginx-Uwsgi-Django", "$nginx_uwsgi_django_proof", "always"]
ANSWERED = "$server_name; generation=$upstream_http_x_uwsgi_generation; upstream=$upstream_status"
HEADERS = [
    ["uwsgi_hide_header", "X-Content-Type-Options"],
    ["uwsgi_hide_header", "X-Uwsgi-Generation"],
    NOSNIFF,
    PROOF,
]
APPLICATION = [
    ["include", "uwsgi_params"],
    ["uwsgi_param", "HTTP_HOST", "$nginx_uwsgi_django_host"],
    ["uwsgi_param", "HTTP_PROXY", ""],
    ["uwsgi_param", "HTTP_X_FORWARDED_PROTO", "$scheme"],
    ["uwsgi_pass", "unix:/run/uwsgi/mysite.sock"],
]
ALL = ["location", "/", APPLICATION]

FEATURES: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "maintenance": (
        {"maintenance": {"except": ["192.0.2.0/24"]}},
        [
            ["geo", "$site_mysite_inside", [["default", "0"], ["192.0.2.0/24", "1"]]],
            [
                "map",
                "$site_mysite_inside:$uri",
                "$site_mysite_closed",
                [
                    ["volatile"],
                    ["default", "1"],
                    ["~^1:", ""],
                    ["0:/.nginx_uwsgi_django/maintenance", ""],
                    ["~^0:/\\.well-known/acme-challenge/", ""],
                ],
            ],
            [
                "server",
                [
                    *HEAD,
                    *HEADERS,
                    ["if", "$site_mysite_closed", [["return", "503"]]],
                    ["error_page", "503", "/.nginx_uwsgi_django/maintenance"],
                    [
                        "location",
                        "=",
                        "/.nginx_uwsgi_django/maintenance",
                        [
                            ["internal"],
                            NOSNIFF,
                            PROOF,
                            ["add_header", "Retry-After", "600", "always"],
                            ["return", "503"],
                        ],
                    ],
                    ALL,
                ],
            ],
        ],
    ),
    "basic_auth": (
        {
            "basic_auth": {
                "users": {"ann": HASH},
                "realm": "the team; {ours}",
                "except": ["2001:db8::/32"],
            }
        },
        [
            [
                "geo",
                "$site_mysite_realm",
                [["default", "the team; {ours}"], ["2001:db8::/32", "off"]],
            ],
            [
                "server",
                [
                    *HEAD,
                    *HEADERS,
                    ["auth_basic", "$site_mysite_realm"],
                    ["auth_basic_user_file", "/etc/nginx/sites-available/mysite.htpasswd"],
                    ALL,
                ],
            ],
        ],
    ),
    "rate_limits": (
        {
            "rate_limits": [
                {"path": "/", "rate": "10r/s", "burst": 20},
                {"path": "/login/", "rate": "5r/m"},
            ]
        },
        [
            ["limit_req_zone", "$binary_remote_addr", "zone=site_mysite_0:10m", "rate=10r/s"],
            ["limit_req_zone", "$binary_remote_addr", "zone=site_mysite_1:10m", "rate=5r/m"],
            [
                "server",
                [
                    *HEAD,
                    *HEADERS,
                    ["absolute_redirect", "off"],
                    [
                        "location",
                        "^~",
                        "/login/",
                        [
                            ["limit_req", "zone=site_mysite_1", "nodelay"],
                            ["limit_req_status", "429"],
                            *APPLICATION,
                        ],
                    ],
                    [
                        "location",
                        "/",
                        [
                            ["limit_req", "zone=site_mysite_0", "burst=20", "nodelay"],
                            ["limit_req_status", "429"],
                            *APPLICATION,
                        ],
                    ],
                ],
            ],
        ],
    ),
    "logs": (
        {
            "access_log": {"path": "/var/log/nginx/mysite.log", "format": "timed"},
            "error_log": {"path": "/var/log/nginx/mysite.error.log", "level": "warn"},
        },
        [
            [
                "server",
                [
                    *HEAD,
                    ["access_log", "/var/log/nginx/mysite.log", "timed"],
                    ["error_log", "/var/log/nginx/mysite.error.log", "warn"],
                    *HEADERS,
                    ALL,
                ],
            ]
        ],
    ),
    "redirect_from": (
        {"server_names": ["www.example.net"], "redirect_from": ["example.net"]},
        [
            [
                "server",
                [HEAD[0], ["server_name", "www.example.net"], *HEAD[2:], *HEADERS, ALL],
            ],
            [
                "server",
                [
                    HEAD[0],
                    ["server_name", "example.net"],
                    ["keepalive_timeout", "20s"],
                    ["location", "/", [["return", "301", "http://www.example.net$request_uri"]]],
                ],
            ],
        ],
    ),
}


def tree(text: str, path: pathlib.Path) -> list[Any]:
    """Directives with their parameters and blocks; in a map or a geo crossplane knows no names."""
    path.write_text(text, encoding="utf-8")
    payload = crossplane.parse(
        str(path), single=True, strict=False, check_ctx=False, check_args=False
    )
    assert payload["status"] == "ok", payload["errors"]

    def plain(block: list[dict[str, Any]]) -> list[Any]:
        return [
            [one["directive"], *one["args"], *([plain(one["block"])] if "block" in one else [])]
            for one in block
            if "comment" not in one
        ]

    return plain(payload["config"][0]["parsed"])


@pytest.mark.parametrize("feature", FEATURES)
def test_a_feature_is_this_tree(tmp_path: pathlib.Path, feature: str) -> None:
    site, expected = FEATURES[feature]
    m = modules(site, **NGINX)
    assert m.site_pillar.check() == []
    assert tree(m.nginx_site.render("mysite"), tmp_path / "site.conf") == expected


def test_what_all_sites_share_is_this_tree(tmp_path: pathlib.Path) -> None:
    m = modules(**NGINX)
    assert tree(m.nginx_site.http([]), tmp_path / "http.conf") == [
        ["server_names_hash_bucket_size", "128"],
        ["server_tokens", "off"],
        [
            "map",
            "$host $http_host",
            "$nginx_uwsgi_django_host",
            [["default", "$host"], [r"~*^([^ ]+) (\1\.?(?::[0-9]+)?)$", "$2"]],
        ],
        [
            "map",
            "$http_x_nginx_uwsgi_django",
            "$nginx_uwsgi_django_proof",
            [["default", ""], ["proof", "$nginx_uwsgi_django_answered"]],
        ],
        [
            "map",
            "$remote_addr $server_addr",
            "$nginx_uwsgi_django_answered",
            [["default", ""], [r"~^([^ ]+) \1$", ANSWERED]],
        ],
        ["log_format", "timed", "escape=default", "$remote_addr $request_time"],
    ]
