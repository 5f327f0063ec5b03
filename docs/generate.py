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

All keys stand under `nginx_uwsgi_django`. The formula checks the whole pillar before it changes
anything. If there is an error, the run changes nothing.

```console
# salt '*' site_pillar.check      the errors of a pillar
# salt '*' site_pillar.show       the settings that are not a default, and where each comes from; secrets masked
# salt '*' site_pillar.show defaults=True
```

## Rules

- **All errors at once.** Each error names its pillar path, the value with its YAML type, the
  expected value and, for a misspelt key, the key that was probably meant.
- **Unknown keys are errors.** So are values of the wrong type: `'4'` is not a number, `yes` is not
  a text.
- **Nothing is removed by accident.** A pillar without `nginx_uwsgi_django`, or without sites, is an
  error. To remove a site, set `absent: true`, or take it out of the pillar and set `purge: true`.
  Otherwise the site stays, and every run reports it. Data is deleted only if `clean:data` is true
  and the site is `absent: true` or `nginx_uwsgi_django.clean` is applied.
- **Merging.** Salt merges the pillar files as usual. `site_defaults` gives the defaults of every
  site: mappings are merged key by key, any other value is replaced by the site's own. `null`, where
  it is allowed, removes a default. `lookup` overrides the values of the platform, which Salt's
  grains `os_family`, `os` and `osfinger` select.
- **Secrets** belong in `project:env`. Their values appear in no error, diff, log or job cache.
- **Paths** are absolute and normalised, and contain only letters, digits and `._@+-`.

The check also compares values with each other and with the host. Errors are:

- one server name twice on the same address and port, or two `default_server`s;
- two sites with the same socket, path or user, or one project inside another;
- site names that differ only in `-` and `_`;
- a site that runs as nginx's user, or as an account of the system;
- a certificate without its key;
- the PPA on Debian, and a system that is neither Debian nor Ubuntu;
- a site whose unit would replace a unit of another program;
- releases below a directory that users other than root can change.

On EC2, `server_names` accepts the names of the instance, such as `ec2:public-hostname`: see
[ec2.md](ec2.md).

`site_pillar.show` shows the origin of each value:

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

Salt reads YAML 1.1, where some plain words have another meaning. If the result does not fit the key,
the error says so:

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

`sites` is a mapping of sites by name. `site_defaults` takes all keys of a site but `absent` and
`takeover`.

A name is {site_name}.
The units (`uwsgi-NAME`) and the nginx file carry it. By default it is also the name of the user, of
the directory in `/srv` and of the socket.

{top}
## A site

Every site that is not absent needs `server_names`, `project:wsgi` and `project:settings`. They may
come from `site_defaults`.

{site}
## Reserved names

A site and its user must not have a name of this list, because {reserved_why}, or because units of
another service have the name:

{reserved}

and `systemd-…`, `_…`, `app`, `emperor`, `…-preflight`. Also reserved for a site and its group:

{groups}

## uWSGI options that are refused

`uwsgi:options` takes any other option by its long name. A value must not contain a newline, `%`,
`$(` or `@(`, because uWSGI would replace them (`@(exec://…)` runs a command). The patterns match
the whole name.

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
