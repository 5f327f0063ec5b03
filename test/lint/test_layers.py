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
        (
            "django_site",
            "nginx_uwsgi_django",
            "rollout_host",
            "site_health",
            "site_leftovers",
            "site_rollback",
            "takeover",
        ),
        WHOLE,
    ),
}


# A module has at most so many lines, a function so many of code, and its blocks are so deep. Tables of
# the pillar's keys are one expression each, and are as long as they are.
LONGEST_MODULE, LONGEST_FUNCTION, DEEPEST = 800, 60, 4
TABLES = {
    "_nud_contract._site_keys",
    "_nud_contract_host._ingress",
    "_nud_contract_project._source",
    "_nud_contract_project.project_keys",
    "_nud_contract_serving.serving_keys",
    "_nud_contract_tls.tls_keys",
    "_nud_contract_uwsgi.companion_keys",
    "_nud_contract_uwsgi.uwsgi_keys",
}

# What is larger today: each is to go.
LONG_MODULES: set[str] = set()
LONG_FUNCTIONS = {
    "_nud_survey._carry_project",
    "_nud_survey._carry_server",
    "_nud_survey._site",
    "_nud_survey.look",
    "_nud_survey_serving._names_and_addresses",
    "_nud_survey_serving._plain_values",
    "_nud_contract_checks._check_site",
    "_nud_contract_checks.check_across",
    "_nud_contract_project.check_project",
    "_nud_contract_serving.check_listen",
    "_nud_contract_serving.check_serving",
    "rollout.apply",
}
DEEP_FUNCTIONS = {"_nud_process_pool._collect", "_nud_survey.look", "_nud_survey_around.renewals"}


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
    assert upward == set()


def test_no_call_leads_back() -> None:
    assert cycles(edges()) == set()


def code() -> Iterator[tuple[str, ast.Module, int]]:
    """Every module of the formula: its name, its tree, its lines."""
    for folder in ("_modules", "_states", "_runners"):
        for path in sorted((FORMULA / folder).glob("*.py")):
            text = path.read_text("utf-8")
            yield path.stem, ast.parse(text), len(text.splitlines())


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    for module, tree, _ in code():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                yield f"{module}.{node.name}", node


def length(function: ast.FunctionDef) -> int:
    """The lines of a function without its docstring."""
    lines = (function.end_lineno or 0) - function.lineno + 1
    if ast.get_docstring(function, clean=False) is not None:
        first = function.body[0]
        lines -= (first.end_lineno or 0) - first.lineno + 1
    return lines


def depth(node: ast.AST, above: int = 0) -> int:
    """How deep the blocks of a function are in each other; an ``elif`` is no block of its own."""
    deepest = above
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
            continue
        block = isinstance(child, (ast.If, ast.For, ast.While, ast.With, ast.Try))
        if isinstance(node, ast.If) and node.orelse == [child] and isinstance(child, ast.If):
            block = False
        deepest = max(deepest, depth(child, above + block))
    return deepest


def test_no_module_is_too_long() -> None:
    assert {module for module, _, lines in code() if lines > LONGEST_MODULE} == LONG_MODULES


def test_no_function_is_too_long() -> None:
    found = {name for name, node in functions() if length(node) > LONGEST_FUNCTION}
    assert found == LONG_FUNCTIONS | TABLES


def test_no_function_is_too_deep() -> None:
    assert {name for name, node in functions() if depth(node) > DEEPEST} == DEEP_FUNCTIONS
