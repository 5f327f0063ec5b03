"""
The layers of the execution modules: a module calls modules below its own, and no call leads back.

The edges are read from the source: imports of the library, and every ``"module.function"`` that stands
where Salt's loader is asked for one.
"""

import ast
import pathlib
from collections.abc import Iterator

from ..hosts.paths import FORMULA

MODULES = FORMULA / "_modules"

# By the name of the module: what it may call is of its own layer or of one below.
LIBRARY, ASKED, HOST, WHOLE = range(4)
LAYERS = {
    **dict.fromkeys(("ec2_instance", "site_pillar"), ASKED),
    **dict.fromkeys(
        ("django_site", "nginx_uwsgi_django", "rollout_host", "site_health", "site_leftovers"),
        WHOLE,
    ),
}

# Calls that lead to a layer above, or back to where they come from: each is to go.
AGAINST = {
    ("django_release", "site_companion"),
    ("django_release", "release_hook"),
    ("django_release", "uwsgi_generation"),
    ("python_venv", "django_release"),
    ("uwsgi_socket", "uwsgi_generation"),
}


def layer(module: str) -> int:
    return LIBRARY if module.startswith("_nud") else LAYERS.get(module, HOST)


def names() -> set[str]:
    return {path.stem for path in MODULES.glob("*.py")} - {"_nud"}


def called(path: pathlib.Path, known: set[str]) -> Iterator[str]:
    """The modules that a module calls or imports."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "_nud":
            yield from (f"_nud_{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("_nud_"):
            yield str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("_nud_"))
        elif isinstance(node, ast.Subscript):
            word = node.slice
            if isinstance(word, ast.JoinedStr) and word.values:
                word = word.values[0]  # f"nginx_tree.{verb}"
            if isinstance(word, ast.Constant) and isinstance(word.value, str):
                module, dot, _ = word.value.partition(".")
                if dot and module in known:
                    yield module


def edges() -> set[tuple[str, str]]:
    known = names()
    return {
        (path.stem, other)
        for path in MODULES.glob("*.py")
        if path.stem in known
        for other in called(path, known)
        if other != path.stem
    }


def cycles(found: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The edges whose end leads back to their start."""
    after: dict[str, set[str]] = {}
    for start, end in found:
        after.setdefault(start, set()).add(end)

    def reach(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            for end in after.get(todo.pop(), set()) - seen:
                seen.add(end)
                todo.append(end)
        return seen

    return {(start, end) for start, end in found if start in reach(end)}


def test_the_library_is_plain_python() -> None:
    """Without the loader's names, and without a module of Salt's but its exceptions."""
    for path in MODULES.glob("_nud*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        dunders = {"__salt__", "__opts__", "__pillar__", "__grains__", "__context__", "__states__"}
        assert not used & dunders, f"{path.name} uses {used & dunders}"


def test_no_call_leads_upward() -> None:
    upward = {(start, end) for start, end in edges() if layer(start) < layer(end)}
    assert upward - AGAINST == set()


def test_no_call_leads_back() -> None:
    assert cycles(edges() - AGAINST) == set()


def test_what_may_still_lead_back_does() -> None:
    """The list of exceptions holds nothing that is gone."""
    found = edges()
    without = found - AGAINST
    for edge in AGAINST:
        assert edge in found, f"{edge} is gone: take it off the list"
        start, end = edge
        assert layer(start) < layer(end) or edge in cycles(without | {edge}), edge
