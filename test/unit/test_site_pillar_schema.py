"""The schema for editors says what the validator on the host says, about pillars of any shape."""

import copy
import json

import jsonschema
import pytest
import salt.utils.yaml
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from _modules import site_pillar
from _nud import contract, contract_schema, uwsgi_ini
from test.hosts.paths import FORMULA

VALIDATOR = jsonschema.Draft202012Validator(site_pillar.schema())

HOSTILE = st.sampled_from(
    ["", " ", "\n", "a\n", "\0", "%", "$(x)", "@(x)", "../x", "/", "/a/..", "ü", "😀", "\u2028"]
    + ["True", "on", "080", "1e3", "0666", "root", "_", "-", "--x", "a b", "x" * 40, "/x" * 60]
)
CHARACTERS = st.sampled_from(list("\n\r\t\0 %$@(){};'\"\\/.-_:*#~[]") + ["ü", "A", "0", "\x7f"])
JUNK = st.one_of(
    HOSTILE,
    st.text(max_size=6),
    st.sampled_from(
        [None, True, False, 0, 1, -1, 80, 70000, 2**70, 1.0, 1.5, float("inf"), float("nan")]
        + [[], {}, [None], [[]], {"x": 1}, {"": None}]
    ).map(copy.deepcopy),  # it may be spoilt itself
)
# Some right values for each key, by the end of its path; the definition's own come on top.
RIGHT = {
    "headers:*": ["DENY", "same-origin; x"],
    "addresses:0": ["10.0.0.0/8", "2001:db8::1"],
    "except:0": ["10.0.0.0/8", "2001:db8::1"],
    "users:*": ["$6$saltsalt$" + "x" * 86, "$apr1$saltsalt$" + "y" * 22],
    "listen:0": [80, 81, 82.0, "83", "127.0.0.1:80", "[::]:80", "*:84 default_server"],
    "ports:0": [80, 443.0],
    "ranges:0": ["0.0.0.0/0", "2001:db8::/32"],
    "server_names:0": ["a.org", "*.a.org", ".b.org", "mail.*", "_", "192.0.2.1", "A.net"],
    "redirect_from:0": ["b.net", "*.b.net", ".c.net", "d.*"],
    "exclude:0": ["*.pyc", "media/*"],
    "git:key": ["-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n"],
    "host_keys:0": ["a.org ssh-ed25519 AAAA", "b.org ecdsa-sha2-nistp256 AAAA=="],
    "status:0": [200, 404, 500.0],
    "env:*": ["", "secret", " % $", "ü"],
    "params:*": ["$request_id", "a b"],
    "allow:0": ["proc", "jit"],
    "writable:0": ["/mnt/efs/media"],
    "allow_loss:0": ["listen *:443", "name www.example.org on *:80"],
    "units:0": ["uwsgi.service", "gunicorn.socket"],
    "files:0": ["/etc/nginx/conf.d/old.conf", "/etc/nginx/sites-enabled/old"],
    "sockets:0": ["/tmp/mysite.sock"],
    "options:*": [True, 3, "text", ["a", 1, False]],
    "packages:0": ["libpq-dev", "g++"],
    "extras:0": ["postgres", "a_b"],
    "groups:0": ["prod"],
    "wheels:0": ["/srv/wheels", "vendor"],
    "command:0": ["celery", "bin/work"],
    "limits:*": [4096, "512M", "infinity"],
    "components:0": ["main", "nginx"],
    "fingerprints:0": ["A" * 40, "B" * 64],
}
KEYS = {
    "sites": ["mysite", "a", "b-c"],
    "env": ["KEY", "_X"],
    "options": ["harakiri", "plugins"],
    "params": ["HTTP_X_REQUEST_ID", "REMOTE_USER"],
    "limits": ["MemoryMax", "LimitNOFILE"],
    "companions": ["worker", "beat"],
    "headers": ["X-Frame-Options", "Referrer-Policy"],
    "users": ["ann", "bob@example.org"],
    "log_formats": ["json", "short"],
}
ODD_KEYS = st.sampled_from(
    ["unknown", "Absent", "absent", "wsgi", "root", "Bad", "", "a\n", "1X", "UWSGI_X"]
    + ["DJANGO_SETTINGS_MODULE", "socket", "daemonize", "die-on-term", "memory"]
)


def known(node, path):
    values = [value for value in (node.default, node.example) if isinstance(value, (str, int))]
    if isinstance(node, contract_schema.Text):
        values += node.choices
    for end in (":".join(path[-2:]), path[-1] if path else ""):
        values += RIGHT.get(end, [])
    if node.nullable:
        values.append(None)
    return values


@st.composite
def right(draw, node, path=()):
    """A value that has the right shape."""
    if node.nullable and draw(st.integers(0, 3)) == 0:
        return None
    if isinstance(node, contract_schema.Mapping):
        needed = {
            "server_names",
            "project",
            "wsgi",
            "settings",
            "sites",
            "url",
            "revision",
            "sha256",
            "from",
            "to",
            "addresses",
            "users",
            "path",
            "rate",
            "format",
            "command",
            "minion",
            "group",
        }
        if node.one:
            key = draw(st.sampled_from(sorted(node.keys)))
            return {key: draw(right(node.keys[key], (*path, key)))}
        wanted = draw(st.sets(st.sampled_from(sorted(node.keys)), max_size=4)) if node.keys else ()
        return {
            key: draw(right(child, (*path, key)))
            for key, child in node.keys.items()
            if key in wanted or key in needed
        }
    if isinstance(node, contract_schema.Table):
        names = st.sampled_from(KEYS[path[-1]])
        chosen = draw(st.sets(names, min_size=node.least, max_size=2))
        return {name: draw(right(node.value, (*path, "*"))) for name in sorted(chosen)}
    if isinstance(node, contract_schema.List):
        items = right(node.items, (*path, "0"))
        return draw(st.lists(items, min_size=node.least, max_size=3, unique=node.unique))
    return draw(st.sampled_from(known(node, path)))


def containers(tree, found):
    """Every mapping and list in a tree."""
    if isinstance(tree, (dict, list)):
        found.append(tree)
        for item in tree.values() if isinstance(tree, dict) else tree:
            containers(item, found)
    return found


def spoil(draw, tree):
    """Change one thing anywhere: another value, a key more or less, a character more or less."""
    places = containers(tree, [])
    place = places[draw(st.integers(0, len(places) - 1))]
    what = draw(st.integers(0, 4))
    if isinstance(place, dict) and (what == 0 or not place):
        place[draw(ODD_KEYS)] = draw(JUNK)
        return
    if not place:
        place.append(draw(JUNK))
        return
    keys = list(place) if isinstance(place, dict) else list(range(len(place)))
    key = keys[draw(st.integers(0, len(keys) - 1))]
    value = place[key]
    if what == 1:
        del place[key]
    elif what == 4 and isinstance(place, list):
        place.append(copy.deepcopy(value))
    elif what == 2 and isinstance(value, str):
        at = draw(st.integers(0, len(value)))
        more = draw(st.booleans())
        place[key] = value[:at] + (draw(CHARACTERS) if more else "") + value[at + (not more) :]
    else:
        place[key] = draw(JUNK)


@st.composite
def pillars(draw):
    """A pillar of the right shape with none to three things spoilt."""
    pillar = {"nginx_uwsgi_django": copy.deepcopy(draw(right(contract.PILLAR)))}
    for _ in range(draw(st.integers(0, 3))):
        spoil(draw, pillar)
    return pillar


def places(errors):
    """Where the schema finds something wrong, as pillar paths."""
    for error in errors:
        path = [str(part) for part in error.absolute_path]
        if error.validator == "additionalProperties":
            known_keys = error.schema.get("properties", {})
            for key in error.instance:
                if key not in known_keys:
                    yield (*path, key)
        elif error.validator == "required":
            for key in error.validator_value:
                if key not in error.instance:
                    yield (*path, key)
        elif error.validator == "propertyNames":
            yield (*path, error.instance)
        else:
            yield tuple(path)


def leaves(errors):
    for error in errors:
        if error.validator in ("if", "allOf") and error.context:
            yield from leaves(error.context)
        else:
            yield error


@pytest.fixture(autouse=True)
def minion(monkeypatch):
    monkeypatch.setattr(
        site_pillar, "__grains__", {"os": "Ubuntu", "os_family": "Debian"}, raising=False
    )
    monkeypatch.setattr(site_pillar, "__pillar__", {}, raising=False)
    monkeypatch.setattr(site_pillar, "__context__", {}, raising=False)
    monkeypatch.setattr(site_pillar, "__salt__", {}, raising=False)


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(site_pillar.schema())
    written = json.loads((FORMULA / "pillar.schema.json").read_text(encoding="utf-8"))
    assert written == site_pillar.schema()
    assert written["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_the_example_and_the_shortest_pillar_are_valid():
    text = (FORMULA / "pillar.example").read_text(encoding="utf-8")
    VALIDATOR.validate(salt.utils.yaml.safe_load(text))
    # Beside other formulas' pillars.
    site = {"server_names": ["a"], "project": {"wsgi": "a:b", "settings": "c"}}
    VALIDATOR.validate({"other": 1, "nginx_uwsgi_django": {"sites": {"a": site}}})


@pytest.mark.parametrize(
    "pillar",
    [
        {},
        {"nginx_uwsgi_django": None},
        {"nginx_uwsgi_django": {"sites": {}}},
        {"nginx_uwsgi_django": {"sites": {"a": {}}}},
        {"nginx_uwsgi_django": {"sites": {"a": {"absent": 1}}}},
        {
            "nginx_uwsgi_django": {
                "sites": {"a": {"absent": True}},
                "site_defaults": {"absent": True},
            }
        },
        {"nginx_uwsgi_django": {"sites": {"a\n": {"absent": True}}}},
        {"nginx_uwsgi_django": {"sites": {"root": {"absent": True}}}},
        {"nginx_uwsgi_django": {"sites": {"a": {"absent": True, "charset": "utf-8\n"}}}},
        {"nginx_uwsgi_django": {"sites": {"a": {"absent": True, "listen": [True]}}}},
    ],
)
def test_both_refuse(pillar):
    assert not VALIDATOR.is_valid(pillar)
    assert site_pillar.check(pillar)


@settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(pillars())
def test_validator_and_schema_agree(pillar):
    found = site_pillar.check(pillar)
    shape = [error for error in found if error["rule"] == "shape"]
    by_schema = list(leaves(VALIDATOR.iter_errors(pillar)))
    event("valid" if not found else "wrong by shape" if shape else "wrong by meaning")
    # One error of the shape more or less, and one of the two accepts what the other refuses.
    assert bool(shape) == bool(by_schema), (shape, by_schema)
    # And they find it in the same places. One may look further into what the other leaves at that
    # (the parts of an alternative, what is under a name that is wrong): then one path leads on
    # from the other's.
    ours = [error["path"] for error in shape]
    theirs = [":".join(place) for place in places(by_schema)]

    def near(place, others):
        return any(
            (place + ":").startswith(other + ":") or (other + ":").startswith(place + ":")
            for other in others
        )

    escaped = [ascii(place)[1:-1].replace("\\\\", "\\") for place in theirs]
    if all(len(place) < 150 for place in escaped) and pillar_is_mapping(pillar):
        assert [place for place in ours if not near(place, escaped)] == []
        assert [place for place in escaped if not near(place, ours)] == []
    # What is valid resolves, and what resolves can be written into uWSGI's ini.
    if not found:
        site_pillar.__pillar__ = pillar
        site_pillar.__context__ = {}
        for site in site_pillar.settings()["sites"].values():
            assert uwsgi_ini.refused(site["uwsgi"]["options"]) == []
        site_pillar.show()


def pillar_is_mapping(pillar):
    return isinstance(pillar, dict) and isinstance(pillar.get("nginx_uwsgi_django"), dict)
