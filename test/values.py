"""
Values that hypothesis makes for the tests of each language, and sites full of them.
"""

import copy
from typing import Any, TypeVar

import hypothesis
from hypothesis import strategies as st

from _nud import contract, contract_patterns, contract_schema

_T = TypeVar("_T")

# What means something to nginx, uWSGI, systemd, a shell, Jinja or YAML.
_TOKENS = [
    *" \t\\\"'`$%@#;{}()[]=~:,&|<>*?!/.-_aZ09éß\u2028\x85\xa0\ufeff😀",
    "$(id)",
    "${HOME}",
    "$remote_addr",
    "$$",
    "@(exec://id)",
    "%(x)",
    "%h",
    "%n",
    "%%",
    "\\x41",
    "\\101",
    "\\n",
    "\\",
    '";',
    "'; ",
    "; }",
    "}}",
    "{{ 1 }}",
    "{% x %}",
    "[uwsgi]",
    "[Service]",
    "#x",
    "\\\\",
    "../",
    "//",
    "--x",
    "=",
]
_CONTROLS = [*"\n\r\0\x01\x0b\x1b\x7f", "\r\n", "\\\n", "\nExecStart=/bin/x\n"]

#: Text that is hostile, on one line.
LINES = st.one_of(
    st.lists(st.sampled_from(_TOKENS), max_size=12).map("".join),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20),
)
#: The same, and text that would begin another line or end the text.
TEXTS = st.one_of(
    LINES,
    st.lists(st.sampled_from([*_TOKENS, *_CONTROLS]), max_size=12).map("".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)


def made(strategy: st.SearchStrategy[_T], count: int, seed: int) -> list[_T]:
    """
    That many values in one go, for a tool that is too slow to be started for each of them.
    """
    values: list[_T] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(strategy)
    def collect(value: _T) -> None:
        values.append(copy.deepcopy(value))

    collect()
    return values


def _leaf(path: str, prefix: str = "") -> st.SearchStrategy[Any]:
    """Texts that the definition's own pattern lets through, by the pillar path of the key."""
    node: Any = contract.SITE
    for key in path.split(":"):
        node = node.items if key == "0" else node.keys[key]
    node = node.options[-1] if isinstance(node, contract_schema.Plain) else node
    if isinstance(node, contract_schema.Plain) or not isinstance(node, contract_schema.Text):
        raise TypeError(f"{path} is no text")
    assert node.pattern is not None
    found = st.from_regex(node.pattern, fullmatch=True)
    return found.map(lambda text: prefix + text).filter(lambda text: node.wrong(text) is None)


_OPTION = contract.SITE.keys["uwsgi"].keys["options"].value.options[0]  # type: ignore[attr-defined]


def placed(site: dict[str, Any], name: str, port: int) -> dict[str, Any]:
    """A site of :py:func:`sites` with a port, a path and a socket of its own."""
    own = copy.deepcopy(site)
    own["listen"] = [f"{address}{port}" for address in site["listen"]]
    own["project"]["path"] = f"/srv/{name}{site['project']['path']}"
    own["socket"]["path"] = f"/run/{name}{site['socket']['path']}"
    return own


def sites() -> st.SearchStrategy[dict[str, Any]]:
    """Sites of any values that the contract allows, once they are :py:func:`placed`."""
    paths = st.from_regex(contract_patterns.PATH, fullmatch=True).filter(
        lambda text: len(text) < 40
    )
    lines = LINES.filter(lambda text: _OPTION.wrong(text) is None)
    return st.fixed_dictionaries(
        {
            "server_names": st.lists(
                # The names that EC2 gives an instance are asked of EC2.
                _leaf("server_names:0").filter(lambda name: not name.startswith("ec2:")),
                min_size=1,
                max_size=3,
                unique_by=str.lower,
            ),
            "listen": st.lists(
                st.sampled_from(["", "127.0.0.1:", "[::]:", "[::1]:"]),
                min_size=1,
                max_size=3,
                unique=True,
            ),
            "charset": _leaf("charset"),
            "client_max_body_size": st.sampled_from(["0", "1", "10m", "128M", "999999G", "9k"]),
            "project": st.fixed_dictionaries(
                {
                    "path": paths,
                    "wsgi": _leaf("project:wsgi"),
                    "settings": _leaf("project:settings"),
                    "env": st.dictionaries(
                        st.from_regex(r"X[A-Z0-9_]{0,8}", fullmatch=True), LINES
                    ),
                    "static": st.fixed_dictionaries({"url": _leaf("project:static:url")}),
                    "venv": st.just("/usr"),
                }
            ),
            "uwsgi": st.fixed_dictionaries(
                {
                    "binary": st.just("/bin/true"),
                    "options": st.dictionaries(
                        st.sampled_from(
                            ["touch-workers-reload", "static-index", "procname-prefix"]
                        ),
                        lines,
                    ),
                    "limits": st.sampled_from(
                        [{}, {"MemoryMax": "512M", "LimitNOFILE": 4096}, {"CPUQuota": "150%"}]
                    ),
                    "processes": st.integers(1, 1024),
                }
            ),
            "socket": st.fixed_dictionaries({"path": paths}),
        }
    )


def certified() -> st.SearchStrategy[dict[str, Any]]:
    """What a site says of TLS, with files of any names that the contract allows."""
    paths = st.from_regex(contract_patterns.PATH, fullmatch=True).filter(
        lambda text: len(text) < 40
    )
    return st.fixed_dictionaries(
        {
            "certificate": paths,
            "key": paths,
            "redirect": st.booleans(),
            "hsts": st.integers(0, 10**8),
        }
    )
