#!/usr/bin/env python3
"""
Write what is made from the pillar's one definition and from the tree: docs/generate.py [--check]

pillar.schema.json, nginx_uwsgi_django/defaults.yaml and docs/pillar.md come from the tables in
_modules/_nud_contract*.py, nginx_uwsgi_django/modules.json from the names of the modules. With --check
nothing is written, and a file that differs is an error.
Needs Salt and PyYAML, as in the environment that bin/test makes.
"""

import importlib.util
import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import salt.utils.yaml
import yaml

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT / "_modules"))
from _nud import contract, contract_patterns, contract_schema, uwsgi_ini  # noqa: E402

COMMAND = "docs/generate.py"


def _module(name: str) -> ModuleType:
    """A module of this checkout, not of a minion's cache."""
    path = CHECKOUT / f"_modules/{name}.py"
    spec = importlib.util.spec_from_file_location(f"{name}_definition", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def definition() -> ModuleType:
    """The module with the definition."""
    module = _module("site_pillar")
    module.__salt__ = {"ec2_instance.facts": dict}  # type: ignore[attr-defined]
    return module


def schema_text(module: ModuleType) -> str:
    return json.dumps(module.schema(), indent=2, ensure_ascii=True) + "\n"


class _Dumper(yaml.SafeDumper):
    """Lists indented under their key, as yamllint and people like them."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def defaults_text(module: ModuleType) -> str:
    head = (
        f"# Made by {COMMAND} from _modules/_nud_contract*.py: edit that, and run it again.\n"
        "# A reference: the modules take the same values from the same definition.\n"
        "# What stands in <> is derived or required.  `platforms` is laid over `defaults` by grain,\n"
        "# and the pillar over both.\n"
    )
    body = yaml.dump(
        module.defaults(), Dumper=_Dumper, sort_keys=False, default_flow_style=False, width=90
    )
    return f"# vim: ft=yaml\n# yamllint disable rule:line-length\n{head}---\n{body}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _literal(text: str) -> str:
    return f"`{text}`"


def _type(node: Any, module: ModuleType) -> str:
    if isinstance(node, contract_schema.Plain):
        names = list(node.types)
    elif isinstance(node, contract_schema.List):
        names = [f"list of {_type(node.items, module)}"]
    else:
        names = list(node.types)
    if node.nullable:
        names.append("null")
    return " or ".join(names)


def _default(node: Any, module: ModuleType) -> str:
    if node.default is contract_schema.REQUIRED:
        return "**required**"
    if node.default is contract_schema.BY_KEYS:
        return ""
    if isinstance(node.default, contract_schema.Derived):
        return str(node.default.says).replace("'*.example.org'", "`*.example.org`")
    return _literal(contract_schema._yaml_inline(node.default))


def _allowed(node: Any, module: ModuleType) -> str:
    if isinstance(node, contract_schema.Mapping):
        return "" if node.keys else "no keys yet"
    if isinstance(node, contract_schema.Table):
        return f"keys: {node.key.says}; values: {node.value.says}"
    if isinstance(node, contract_schema.List):
        return f"{node.expected()}; each {node.items.expected()}"
    if isinstance(node, contract_schema.Text) and node.choices:
        return ", ".join(_literal(choice) for choice in node.choices)
    return str(node.expected())


def _rows(node: Any, path: tuple[str, ...], module: ModuleType) -> Iterator[str]:
    for key, child in node.keys.items():
        here = (*path, key)
        name = ":".join(here)
        words = child.description
        if child.example is not None and not isinstance(child, contract_schema.Mapping):
            words = f"{words} Example: {_literal(contract_schema._yaml_inline(child.example))}"
        cells = (
            f"`{name}`",
            _type(child, module),
            _default(child, module),
            _allowed(child, module),
            words,
        )
        yield "| " + " | ".join(_cell(cell) for cell in cells) + " |"
        if isinstance(child, contract_schema.Mapping):
            yield from _rows(child, here, module)


def _table(node: Any, module: ModuleType) -> str:
    head = "| key | type | default | allowed | meaning |\n| --- | --- | --- | --- | --- |\n"
    return head + "\n".join(_rows(node, (), module)) + "\n"


def _refusals(pairs: tuple, module: ModuleType) -> str:
    lines = ["| refused | because |", "| --- | --- |"]
    lines += [f"| `{_cell(what)}` | {_cell(why)} |" for what, why in pairs]
    return "\n".join(lines) + "\n"


PAGE = """\
# The pillar

<!-- Made by {command} from _modules/_nud_contract*.py: edit that, and run it again. -->

Everything stands under `nginx_uwsgi_django`. The whole pillar is checked before anything changes; a
run with an error in it changes nothing. `salt '*' site_pillar.check` lists the errors of a pillar,
`salt '*' site_pillar.show` the settings that are not a default and where each comes from, with secrets
masked (`defaults=True` adds the defaults).

## Rules

- **All errors at once.** Each names its pillar path, what was found with its YAML type, what was
  expected and, where one is near, the key that was meant.
- **Unknown keys are errors**, and so are values of another type: `'4'` is no number, `yes` is no
  text.
- **Nothing is removed by accident.** A pillar without the key, or without sites, is an error. A
  site goes by `absent: true` (nothing else is needed then), or by leaving it out with
  `purge: true`; without either it stays as it is, and every run says so. Data stays: only
  `absent: true`, or `nginx_uwsgi_django.clean`, with `clean:data` on removes it.
- **Merging.** Salt merges the pillar's files as it always does. `site_defaults` lies under each
  site: mappings are merged key by key, anything else is replaced by the site's own; `null`, where
  it is allowed, takes a default away. `lookup` lies over the platform's values, which the
  `os_family`, `os` and `osfinger` grains choose.
- **Secrets** belong in `project:env`. No error, diff, log or job cache shows their values.
- **Paths** are absolute and normalised, of letters, digits and `._@+-`.
- What takes more than one value to see is checked too: a server name twice on one address and port,
  two sites on one socket, path or user, one project inside another, two `default_server`s, site
  names that differ in `-` and `_` alone, a site that runs as nginx's user, a certificate without
  its key, the PPA on Debian, a system that is not Debian or Ubuntu; and on the host: a site whose
  unit would hide somebody else's, that would run as an account of the system's, or whose releases
  root would write where others than root can change the way.

On EC2 `server_names` takes the instance's own names, `ec2:public-hostname` for example: see
[ec2.md](ec2.md).

`site_pillar.show` has the origin of each value:

```
sites:mysite:uwsgi:processes:
    origin: site_defaults
    value: 4
```

## What an error looks like

```yaml
{slips}```

On Debian:

```
{report}
```

## What YAML makes of it

Salt reads YAML 1.1, which takes some plain words for something else. Each of these is an error that
says so, where it is not what the key wants:

| written | read as | write |
| --- | --- | --- |
| `on`, `off`, `yes`, `no` | true, false | `'on'`, or `true` where a boolean is wanted |
| `3.10` | the number 3.1 | `'3.10'` |
| `22:22` | the number 1342, to the base 60 | `'22:22'` |
| `0640` | the number 640 | `'0640'` |
| `080` | the text 080 | `80` |
| `key:` or `~` | nothing | a value, or no key |
| a key written twice | the pillar does not render | one of them |

`[22:22]` in a list of numbers is just the number 1342 by the time anybody can look: quote what has
a colon in it.

## An editor that knows the keys

`pillar.schema.json` is JSON Schema 2020-12. With yaml-language-server (VS Code's YAML extension,
Neovim, Emacs, …) put this into the pillar file's first line, with the path of your checkout:

```yaml
# yaml-language-server: $schema=/srv/formulas/nginx_uwsgi_django/pillar.schema.json
```

## nginx_uwsgi_django

`sites` is a mapping of sites by name. `site_defaults` takes all keys of a site but `absent`.

A name is {site_name}.
It becomes that of the unit (`uwsgi-NAME`), of the nginx file, and by default of the user, the
project's path and the socket.

{top}
## A site

`server_names`, `project:wsgi` and `project:settings` are required of every site that is not absent;
they may stand in `site_defaults`.

{site}
## Names that no site, and no site's user, may have

Because {reserved_why}, or because another service's units would have the name:

{reserved}

and `systemd-…`, `_…`, `app`, `emperor`, `…-preflight`; a site and a group also none of

{groups}

## uWSGI options that are refused

`uwsgi:options` takes any other option by its long name. A value may hold no newline, no `%`, no
`$(` and no `@(`, which uWSGI would replace (`@(exec://…)` runs a command). The patterns match the
whole name.

{options}
## lookup

Rarely needed: the platform's names and paths.

{lookup}"""


#: A pillar as somebody may write it in a hurry, for the page.
SLIPS = """\
nginx_uwsgi_django:
  nginx: {repo: ppa}
  sites:
    shop:
      server_name: [shop.example.org]
      listen: [on, 8080]
      project:
        wsgi: shop.wsgi
        settings: shop.settings
        env: {DEBUG: off}
      uwsgi: {processes: '4', options: {daemonize: /var/log/shop.log}}
      socket: {mode: 0660, path: /dev/shop.sock}
"""


def _report(module: ModuleType) -> str:
    """What the module says of it, on Debian; each error's line broken for the page."""
    errors, _ = module._evaluate(
        salt.utils.yaml.safe_load(SLIPS), {"os": "Debian", "os_family": "Debian"}
    )
    lines = [f"{len(errors)} errors in the pillar:"]
    for error in errors:
        lines += textwrap.wrap(
            f"- {module._sentence(error)}",
            width=100,
            subsequent_indent="    ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def _wrapped(words: str) -> str:
    lines, line = [], ""
    for word in sorted(words.split()):
        if len(line) + len(word) > 92:
            lines.append(line.rstrip())
            line = ""
        line += f"`{word}` "
    return "\n".join([*lines, line.rstrip()])


def page_text(module: ModuleType) -> str:
    top = {
        key: node
        for key, node in contract.PILLAR.keys.items()
        if key not in ("lookup", "sites", "site_defaults")
    }
    return PAGE.format(
        command=COMMAND,
        slips=SLIPS,
        report=_report(module),
        site_name=contract.SITE_NAME.says.removeprefix("a site's name: "),
        top=_table(contract_schema.Mapping(top), module),
        site=_table(contract.SITE, module),
        lookup=_table(contract.PILLAR.keys["lookup"], module),
        reserved_why=contract_patterns.RESERVED_ACCOUNT[1],
        reserved=_wrapped(contract_patterns._SYSTEM_ACCOUNTS),
        groups=_wrapped(contract_patterns._SYSTEM_GROUPS),
        options=_refusals(uwsgi_ini._REFUSED, module),
    )


def modules_text() -> str:
    """The modules that nginx_uwsgi_django/sync.sls brings to a minion."""
    names = {
        kind: sorted(path.stem for path in (CHECKOUT / f"_{kind}").glob("*.py"))
        for kind in ("modules", "states")
    }
    return json.dumps(names, indent=2) + "\n"


def generated(module: ModuleType) -> dict[Path, str]:
    """Every generated file and its text."""
    return {
        CHECKOUT / "pillar.schema.json": schema_text(module),
        CHECKOUT / "nginx_uwsgi_django/defaults.yaml": defaults_text(module),
        CHECKOUT / "nginx_uwsgi_django/modules.json": modules_text(),
        CHECKOUT / "docs/pillar.md": page_text(module),
    }


def main(words: list[str]) -> int:
    stale = 0
    for path, text in generated(definition()).items():
        name = path.relative_to(CHECKOUT)
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        if words == ["--check"]:
            print(f"{name} is not what {COMMAND} makes of the definition")
            stale = 1
        else:
            path.write_text(text, encoding="utf-8")
            print(f"{name} written")
    return stale


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
