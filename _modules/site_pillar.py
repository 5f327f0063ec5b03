"""
The pillar's contract: what may stand in it, what it means, and every error in it.

One definition (``_nud_contract.py`` and the files beside it) says for every key its type, default,
allowed values, description and an example. The validator, the JSON Schema for editors, the reference
in the documentation and the file of defaults are all made from it.

The module reads ``__pillar__`` and not ``pillar.get``, which masks values on 3008.

.. versionadded:: 0.1.0
"""

import copy
import hashlib
import json
import re
from typing import Any

from salt.exceptions import CommandExecutionError
from salt.loader.dunder import __opts__

from _nud import cache, contract, contract_checks, contract_host, contract_resolve, contract_schema

__virtualname__ = "site_pillar"


_MASK = "**********"


#: How many errors a report spells out: a slip in what a thousand sites share is seen sooner.
_MOST = 200


def __virtual__() -> str:
    return __virtualname__


def _evaluate(pillar: Any, grains: dict) -> tuple[list, dict | None]:
    """Every error, and the settings where there is none."""
    errors: list = []
    broken = pillar.get("_errors") if isinstance(pillar, dict) else None
    if broken:
        # Its text quotes the pillar's lines, with their secrets: it stays where it is.
        errors.append(
            contract_schema.meaning_error(
                (),
                f"a pillar that did not render ({len(broken)} errors)",
                "a pillar that renders",
                "see the log of the master, or of salt-call --local pillar.items; a key that is "
                "written twice is one cause",
            )
        )
    if not isinstance(pillar, dict) or contract_schema.ROOT not in pillar:
        if not broken:
            hint = (
                contract_schema.did_you_mean(contract_schema.ROOT, pillar)
                if isinstance(pillar, dict) and pillar
                else ""
            )
            near = re.fullmatch(r"did you mean (.*)\?", hint)
            errors.append(
                contract_schema.error_at(
                    (),
                    None,
                    None,
                    "the formula's pillar, with at least one site under sites (none is removed "
                    "for want of it)",
                    (
                        f"is it {near.group(1)}?"
                        if near
                        else "is the pillar assigned to this minion in the pillar's top.sls?"
                    ),
                )
            )
            errors[-1]["found"] = "no such key in the pillar"
        return errors, None
    raw = pillar[contract_schema.ROOT]
    if not isinstance(raw, dict):
        contract.PILLAR.take(raw, (), errors)
        return errors, None
    taken = contract.PILLAR.take(raw, (), errors)
    if not isinstance(raw.get("sites"), dict):
        return errors, None
    contract_resolve.missing_of_sites(raw, errors)
    contract_checks.check_host(raw, grains, errors)
    # Asked for when a name needs it: no other host loads that module.
    contract_checks.name_by_instance(
        taken, errors, lambda endpoint: __salt__["ec2_instance.facts"](endpoint)
    )
    # A value that is wrong has been left out of `taken`, so its default stands in for it here.
    settings = contract_resolve.resolve(taken, grains)
    contract_checks.check_across(raw, settings, errors)
    return errors, None if errors else settings


def _relevant(grains: Any) -> dict:
    return {key: grains.get(key) for key in contract_host.GRAINS}


def _verdict() -> tuple[list, dict | None]:
    """
    :py:func:`_evaluate` of this minion's pillar, once per pillar and not once per state.

    The pillar in memory is the same object for a whole run; should it be another, its content
    decides. (Equality would not do: True == 1.)
    """
    raw = __pillar__.get(contract_schema.ROOT)
    cached = __context__.get("site_pillar")
    grains = tuple(map(__grains__.get, contract_host.GRAINS))
    if cached is not None and cached["grains"] == grains and not __pillar__.get("_errors"):
        if cached["raw"] is raw and raw is not None:
            return cached["verdict"]
        if cached["digest"] == _digest(raw):
            cached["raw"] = raw
            return cached["verdict"]
    pillar: dict = {}
    for key in (contract_schema.ROOT, "_errors"):
        if key in __pillar__:
            pillar[key] = __pillar__[key]
    if contract_schema.ROOT not in pillar:
        # Only the names of the other keys matter, for a hint.
        pillar = {**{key: None for key in __pillar__ if isinstance(key, str)}, **pillar}
    verdict = _evaluate(pillar, _relevant(__grains__))
    __context__["site_pillar"] = {
        "raw": raw,
        "digest": _digest(raw),
        "grains": grains,
        "verdict": verdict,
    }
    return verdict


def _digest(raw: Any) -> str:
    return hashlib.sha256(json.dumps(raw, default=repr).encode()).hexdigest()


# --- What other modules and people call -------------------------------------------------------
def check(pillar: dict | None = None) -> list:
    """
    Every error in the pillar.

    pillar
        a whole pillar to check instead of this minion's: a mapping with the key
        ``nginx_uwsgi_django``

    Returns a list, empty when the pillar is valid. Each error is a mapping of strings: ``path``
    (as in ``nginx_uwsgi_django:sites:mysite:listen:0``), ``found`` (the value with its YAML
    type; never one that may be a secret), ``expected``, ``hint`` (may be empty) and ``rule``:
    ``shape`` for what the JSON Schema says too, ``meaning`` for what takes more than one value
    or the host to see.

    CLI Example:

    .. code-block:: bash

        salt '*' site_pillar.check

    .. versionadded:: 0.1.0
    """
    if pillar is None:
        return copy.deepcopy(_verdict()[0])
    return _evaluate(pillar, _relevant(__grains__))[0]


def report(pillar: dict | None = None) -> str:
    """
    The errors in the pillar, as text: one line each, and at most 200.

    pillar
        as in :py:func:`check`

    Returns the text, empty when the pillar is valid.

    CLI Example:

    .. code-block:: bash

        salt '*' site_pillar.report

    .. versionadded:: 0.1.0
    """
    errors = check(pillar)
    if not errors:
        return ""
    count = f"{len(errors)} errors" if len(errors) > 1 else "1 error"
    lines = [f"{count} in the pillar:", *(f"- {_sentence(error)}" for error in errors[:_MOST])]
    if len(errors) > _MOST:
        lines.append(f"- and {len(errors) - _MOST} more: site_pillar.check lists them all")
    return "\n".join(lines)


def _sentence(error: dict) -> str:
    hint = f" ({error['hint']})" if error["hint"] else ""
    return f"{error['path']}: found {error['found']}, expected {error['expected']}{hint}"


def settings() -> dict:
    """
    What the pillar asks for, checked whole, with every default filled in.

    Returns a mapping of ``lookup``, ``purge``, ``clean``, ``schedule``, ``nginx``, ``ec2``,
    ``rollout``, ``acme``, ``site_defaults`` and ``sites``. It is shared by all callers of one run:
    read it, do not change it.

    Raises CommandExecutionError with the first error and the number of errors when the pillar is
    not valid.

    CLI Example:

    .. code-block:: bash

        salt '*' site_pillar.settings

    .. versionadded:: 0.1.0
    """
    # While the host is looked at the pillar stays the same object.
    errors, values = cache.once(("pillar",), _verdict)
    if errors or values is None:
        more = f" (and {len(errors) - 1} more: see site_pillar.check)" if len(errors) > 1 else ""
        raise CommandExecutionError(f"the pillar is not valid: {_sentence(errors[0])}{more}")
    return values


def site(name: str) -> dict:
    """
    What the pillar asks for one site, with every default filled in.

    name
        the site's name, as under ``nginx_uwsgi_django:sites``

    Returns a mapping of ``name``, ``absent``, ``server_names`` and the rest; ``tls`` has a
    ``source`` more: ``acme``, ``pillar``, ``path``, or None for a site without TLS. Shared like
    what :py:func:`settings` returns: read it, do not change it.

    Raises CommandExecutionError when the pillar is not valid or has no such site.

    CLI Example:

    .. code-block:: bash

        salt '*' site_pillar.site mysite

    .. versionadded:: 0.1.0
    """
    sites = settings()["sites"]
    if name not in sites:
        hint = contract_schema.did_you_mean(str(name), sites)
        raise CommandExecutionError(
            f"the pillar has no site {name!r} under {contract_schema.ROOT}:sites{'; ' + hint if hint else ''}"
        )
    return sites[name]


def named(name: str) -> str:
    """
    Refuse what cannot be the name of a site, before a path is made of it.

    name
        the site's name; the pillar need not have it

    Returns the name.

    Raises CommandExecutionError when it is none by the pillar's rules.

    CLI Example:

    .. code-block:: bash

        salt '*' site_pillar.named mysite

    .. versionadded:: 0.1.0
    """
    if not isinstance(name, str) or contract.SITE_NAME.wrong(name):
        raise CommandExecutionError(
            f"{contract_schema.safe_key(name)!r} is no name of a site: expected {contract.SITE_NAME.expected()}"
        )
    return name


def ingress(value: dict) -> dict:
    """
    A mapping as under ``ec2:ingress``, checked and with every default filled in, for who has it
    from elsewhere than the pillar: an orchestration. ``minion`` may be left out: it is this one.

    value
        the mapping

    Returns a mapping of the caller's own.

    Raises CommandExecutionError with every error when it is not valid.

    CLI Example:

    .. code-block:: bash

        salt-run salt.cmd site_pillar.ingress '{group: sg-0123456789abcdef0}'

    .. versionadded:: 0.1.0
    """
    errors: list = []
    if isinstance(value, dict):
        value = {"minion": __opts__["id"], **value}
    taken = contract_host.INGRESS.take(value, ("ec2", "ingress"), errors)
    filled = None if errors else contract_host.INGRESS.fill(taken)
    contract_host.check_ingress(filled, ("ec2", "ingress"), errors)
    if errors or filled is None:
        raise CommandExecutionError("\n".join(map(_sentence, errors)) or "ingress: found null")
    return filled


def _flat(node: contract_schema.Node, value: Any, path: tuple[str, ...]) -> Any:
    """The leaves of settings: (path, node, value)."""
    if isinstance(node, contract_schema.Mapping) and isinstance(value, dict) and node.keys:
        for key, child in node.keys.items():
            yield from _flat(child, value.get(key), (*path, key))
    elif isinstance(node, contract_schema.Table) and isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flat(node.value, item, (*path, key))
    else:
        yield path, node, value


def _says(tree: Any, path: tuple[str, ...]) -> bool:
    """Whether a tree says something about the path: it, or a value above it."""
    for key in path:
        if not isinstance(tree, dict):
            return tree is not None
        if key not in tree:
            return False
        tree = tree[key]
    return True


def show(name: str | None = None, defaults: bool = False) -> dict:
    """
    The settings that are not a fixed default, and where each comes from, without secrets.

    name
        one site's name; without it, everything
    defaults
        with the settings that are a fixed default

    Returns a mapping from pillar path to ``value`` and ``origin``: ``default``, ``platform``
    (a default that the os_family, os or osfinger
    grain decides), ``derived`` (from other values),
    ``lookup``, ``pillar``, ``site_defaults`` or ``site``. Secrets are shown as asterisks.

    Raises CommandExecutionError when the pillar is not valid or has no such site.

    CLI Example:

    .. code-block:: bash

        salt '*' site_pillar.show mysite
        salt '*' site_pillar.show mysite defaults=True

    .. versionadded:: 0.1.0
    """
    values = settings()
    raw = __pillar__[contract_schema.ROOT]
    platform = contract_resolve.platform_values(_relevant(__grains__))
    shown: dict[str, dict] = {}

    def add(path: tuple[str, ...], node: contract_schema.Node, value: Any, origin: str) -> None:
        if origin == "default" and not defaults:
            return
        secret = node.hides and not node.private and value not in (None, {}, [])
        shown[":".join(path)] = {
            "value": _MASK if secret else copy.deepcopy(value),
            "origin": origin,
        }

    def unsaid(node: contract_schema.Node) -> str:
        return "derived" if isinstance(node.default, contract_schema.Derived) else "default"

    if name is None:
        for key in ("lookup", "purge", "clean", "schedule", "nginx", "ec2", "rollout", "acme"):
            for path, node, value in _flat(contract.PILLAR.keys[key], values[key], (key,)):
                if _says(raw, path):
                    origin = "lookup" if key == "lookup" else "pillar"
                else:
                    origin = "platform" if _says(platform, path) else unsaid(node)
                add(path, node, value, origin)
    for one in values["sites"] if name is None else [site(name)["name"]]:
        for path, node, value in _flat(contract.SITE, values["sites"][one], ()):
            if _says(raw["sites"][one], path):
                origin = "site"
            elif _says(raw.get("site_defaults"), path):
                origin = "site_defaults"
            else:
                origin = unsaid(node)
            add(("sites", one, *path), node, value, origin)
    return shown


def defaults() -> dict:
    """
    The defaults of every key, and what differs between platforms.

    Returns a mapping of ``defaults`` (a whole pillar; one site, called SITE; a default that is
    derived is a sentence in angle brackets) and ``platforms`` (by grain, then by its value).

    CLI Example:

    .. code-block:: bash

        salt '*' site_pillar.defaults

    .. versionadded:: 0.1.0
    """

    def plain(node: contract_schema.Node) -> Any:
        if isinstance(node, contract_schema.Mapping) and node.default is contract_schema.BY_KEYS:
            return {key: plain(child) for key, child in node.keys.items()}
        if node.default is contract_schema.REQUIRED:
            return "<required>"
        if isinstance(node.default, contract_schema.Derived):
            return f"<{node.default.says}>"
        return copy.deepcopy(node.default)

    values = {
        key: plain(node)
        for key, node in contract.PILLAR.keys.items()
        if key not in ("sites", "site_defaults")
    }
    values["site_defaults"] = {}
    values["sites"] = {"SITE": plain(contract.SITE)}
    platforms: dict[str, dict] = {}
    for grain, wanted, more in contract_host.PLATFORMS:
        platforms.setdefault(grain, {})[wanted] = copy.deepcopy(more)
    return {"defaults": values, "platforms": platforms}


def schema() -> dict:
    """
    The pillar's shape as JSON Schema 2020-12, for editors and for checks without Salt.

    Returns the schema of a whole pillar file; other formulas' keys beside
    ``nginx_uwsgi_django`` are none of its business.

    CLI Example:

    .. code-block:: bash

        salt '*' site_pillar.schema --out=json

    .. versionadded:: 0.1.0
    """
    root = contract.PILLAR.schema()
    # The two share everything but a site's own keys: written once, referred to twice.
    shared = contract.DEFAULTS_OF_SITES.schema()["properties"]
    own = {key: node.schema() for key, node in contract.SITE.keys.items() if key not in shared}
    reference = {key: {"$ref": f"#/$defs/{key}"} for key in shared}
    root["properties"]["site_defaults"] = {
        "description": contract.DEFAULTS_OF_SITES.description,
        "type": "object",
        "properties": dict(reference),
        "additionalProperties": False,
    }
    root["properties"]["sites"]["additionalProperties"] = {
        "description": contract.SITE.description,
        "type": "object",
        "properties": {**own, **reference},
        "additionalProperties": False,
    }
    root["allOf"] = [_required_unless_default(keys) for keys in contract.REQUIRED_OF_SITE]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Pillar of nginx_uwsgi_django",
        "type": "object",
        "properties": {contract_schema.ROOT: root},
        "required": [contract_schema.ROOT],
        "$defs": shared,
    }


def _required_unless_default(keys: tuple[str, ...]) -> dict:
    """A site says it, unless site_defaults does or the site is absent."""
    # Without a type: these are conditions, and a wrong type is reported where it stands.
    needed: dict = {"required": [keys[-1]]}
    for key in reversed(keys[:-1]):
        needed = {"required": [key], "properties": {key: needed}}
    by_default: dict = {"type": "object", "required": [keys[-1]]}
    for key in reversed(keys[:-1]):
        by_default = {"type": "object", "required": [key], "properties": {key: by_default}}
    return {
        "if": {"properties": {"site_defaults": by_default}, "required": ["site_defaults"]},
        "else": {
            "properties": {
                "sites": {
                    "additionalProperties": {
                        "if": {"properties": {"absent": {"const": True}}, "required": ["absent"]},
                        "else": needed,
                    }
                }
            }
        },
    }
