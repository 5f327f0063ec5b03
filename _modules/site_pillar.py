"""
The pillar's contract: what may stand in it, what it means, and every error in it.

One definition (:py:data:`_PILLAR` below) says for every key its type, default, allowed values,
description and an example. The validator, the JSON Schema for editors, the reference in the
documentation and the file of defaults are all made from it.

The module uses nothing beyond Python's standard library: no Salt release ships ``jsonschema``.
It reads ``__pillar__`` and not ``pillar.get``, which masks values on 3008.

.. versionadded:: 0.1.0
"""

import contextlib
import copy
import difflib
import functools
import grp
import hashlib
import ipaddress
import json
import os
import pwd
import re
import shlex
import stat
from typing import Any

from salt.exceptions import CommandExecutionError
from salt.loader.dunder import __opts__

from _nud import uwsgi_ini

__virtualname__ = "site_pillar"

#: The pillar key that all of it stands under.
_ROOT = "nginx_uwsgi_django"

_MASK = "**********"

#: How many errors a report spells out: a slip in what a thousand sites share is seen sooner.
_MOST = 200

# What a default can be besides a value.
_REQUIRED = object()
_BY_KEYS = object()
_UNSET = object()


def __virtual__() -> str:
    return __virtualname__


# --- The kinds of value ---------------------------------------------------------------------

_TYPE_NAMES = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    type(None): "null",
}


def _type_name(value: Any) -> str:
    """The YAML name of a value's type. bool comes before int, which it is a subclass of."""
    for kind, name in _TYPE_NAMES.items():
        if type(value) is kind:
            return name
    for kind, name in ((str, "string"), (bool, "boolean"), (int, "integer"), (float, "number")):
        if isinstance(value, kind):
            return name
    if isinstance(value, dict):
        return "mapping"
    if isinstance(value, (list, tuple)):
        return "list"
    return type(value).__name__


class _Derived:
    """A default that is worked out from other values; the sentence says how."""

    def __init__(self, says: str) -> None:
        self.says = says


class _Node:
    """One kind of value: reads it, fills in its defaults, and describes itself as JSON Schema."""

    #: The YAML types that can be right here, null apart.
    types: tuple[str, ...] = ()

    def __init__(
        self,
        says: str = "",
        description: str = "",
        default: Any = _REQUIRED,
        example: Any = None,
        nullable: bool = False,
        secret: bool = False,
        private: bool = False,
    ) -> None:
        self.says = says
        self.description = description
        self.default = default
        self.example = example
        self.nullable = nullable
        self.secret = secret
        #: No secret when it is right, but what people write there by mistake may be one.
        self.private = private

    @property
    def hides(self) -> bool:
        """Whether a value that stands here, even by mistake, may hold a secret."""
        return self.secret or self.private

    def expected(self) -> str:
        return f"{self.says}, or null" if self.nullable else self.says

    def take(self, value: Any, path: tuple, errors: list) -> Any:
        """The normalised value; ``_UNSET`` when it is wrong and an error has been added."""
        if value is None and self.nullable:
            return None
        if not self.fits(value):
            errors.append(_error(path, self, value, hint=_type_hint(self, value)))
            return _UNSET
        return self.read(value, path, errors)

    def fits(self, value: Any) -> bool:
        return _type_name(value) in self.types

    def read(self, value: Any, path: tuple, errors: list) -> Any:
        raise NotImplementedError

    def fill(self, value: Any) -> Any:
        return value

    def fresh(self) -> Any:
        """A new copy of the default; ``_UNSET`` when there is none to copy."""
        if self.default is _REQUIRED or isinstance(self.default, _Derived):
            return _UNSET
        if isinstance(self.default, (list, dict)):
            return copy.deepcopy(self.default)
        return self.default

    def shape(self) -> dict:
        raise NotImplementedError

    def schema(self) -> dict:
        shape = self.shape()
        if self.nullable:
            if isinstance(shape.get("type"), str):
                shape["type"] = [shape["type"], "null"]
                if "enum" in shape:
                    shape["enum"] = [*shape["enum"], None]
            else:
                shape = {"anyOf": [shape, {"type": "null"}]}
        head: dict[str, Any] = {}
        text = self.description
        if isinstance(self.default, _Derived):
            text = f"{text} Default: {self.default.says}."
        elif self.default is not _REQUIRED and self.default is not _BY_KEYS:
            head["default"] = copy.deepcopy(self.default)
        if text:
            head["description"] = text
        if self.example is not None:
            head["examples"] = [copy.deepcopy(self.example)]
        return {**head, **shape}


def _whole(pattern: str) -> str:
    """
    A pattern as JSON Schema wants it, which searches: the whole value and nothing after it.

    In Python ``$`` also matches before a final newline, in ECMAScript it does not; with the
    look-ahead both mean the end.
    """
    return f"^(?:{pattern})$(?!\\n)"


class _Text(_Node):
    """
    A string. ``pattern`` has to match all of it; ``refuse`` lists what is refused although it
    matches, each with the reason; ``advice`` maps patterns of common slips to a hint.
    """

    types = ("string",)

    def __init__(
        self,
        says: str,
        pattern: str | None = None,
        choices: tuple[str, ...] = (),
        least: int = 0,
        most: int | None = None,
        refuse: tuple[tuple[str, str], ...] = (),
        advice: tuple[tuple[str, str], ...] = (),
        mode: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(says, **more)
        self.pattern = pattern
        self.choices = choices
        self.least = least
        self.most = most
        self.refuse = refuse
        self.advice = advice
        self.mode = mode

    # Compiled when a value first comes to be read: a run meets few of all the patterns, and to
    # compile them takes ten times as long as to check a pillar.

    @functools.cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        return None if self.pattern is None else re.compile(self.pattern)

    @functools.cached_property
    def _refuse(self) -> list[tuple[re.Pattern[str], str]]:
        return [(re.compile(what), why) for what, why in self.refuse]

    def wrong(self, value: str) -> str | None:
        """What was expected instead of this string; None when it is right."""
        if self.choices and value not in self.choices:
            return self.expected()
        if self._pattern is not None and not self._pattern.fullmatch(value):
            return self.expected()
        if len(value) < self.least or (self.most is not None and len(value) > self.most):
            return f"{self.expected()} ({self.least} to {self.most} characters)"
        for pattern, why in self._refuse:
            if pattern.fullmatch(value):
                return f"another one: {why}"
        return None

    def read(self, value: str, path: tuple, errors: list) -> Any:
        expected = self.wrong(value)
        if expected is None:
            return value
        hint = ""
        for pattern, sentence in self.advice:
            if re.fullmatch(pattern, value, re.DOTALL):
                hint = sentence
                break
        if not hint and self.choices and not self.hides:
            hint = _did_you_mean(value, self.choices)
        if not hint and not self.hides:
            hint = _text_hint(value)
        errors.append(_error(path, self, value, expected, hint))
        return _UNSET

    def shape(self) -> dict:
        shape: dict[str, Any] = {"type": "string"}
        if self.choices:
            shape["enum"] = list(self.choices)
        if self.pattern is not None:
            shape["pattern"] = _whole(self.pattern)
        if self.least:
            shape["minLength"] = self.least
        if self.most is not None:
            shape["maxLength"] = self.most
        if self.refuse:
            shape["allOf"] = [
                {"not": {"type": "string", "pattern": _whole(what)}, "$comment": why}
                for what, why in self.refuse
            ]
        return shape


class _Number(_Node):
    """A whole number. As in JSON Schema 2.0 is one; unlike in Python true is none."""

    types = ("integer",)

    def __init__(self, says: str, least: int, most: int, **more: Any) -> None:
        super().__init__(says, **more)
        # Whether a:b may have been meant, of which YAML makes a number.
        self.beside_text = False
        self.least = least
        self.most = most

    def fits(self, value: Any) -> bool:
        return type(value) is int or (isinstance(value, float) and value.is_integer())

    def read(self, value: Any, path: tuple, errors: list) -> Any:
        if self.least <= value <= self.most:
            return int(value)
        hint = _base_60(int(value)) if self.beside_text else ""
        errors.append(_error(path, self, value, hint=hint))
        return _UNSET

    def shape(self) -> dict:
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


class _Switch(_Node):
    """true or false."""

    types = ("boolean",)

    def __init__(self, **more: Any) -> None:
        super().__init__("true or false", **more)

    def read(self, value: Any, path: tuple, errors: list) -> Any:
        return value

    def shape(self) -> dict:
        return {"type": "boolean"}


class _Plain(_Node):
    """Text, a whole number or a boolean, told apart by type; the text has its own rules."""

    def __init__(self, *options: _Node, says: str, as_text: bool = False, **more: Any) -> None:
        super().__init__(says, **more)
        self.options = options
        self.as_text = as_text
        texts = any(isinstance(option, _Text) for option in options)
        for option in options:
            if isinstance(option, _Number):
                option.beside_text = texts
        self.types = tuple(kind for option in options for kind in option.types)

    @property
    def hides(self) -> bool:
        return self.secret or any(option.hides for option in self.options)

    def fits(self, value: Any) -> bool:
        return any(option.fits(value) for option in self.options)

    def read(self, value: Any, path: tuple, errors: list) -> Any:
        for option in self.options:
            if option.fits(value):
                taken = option.take(value, path, errors)
                if self.as_text and type(taken) is int:
                    return str(taken)
                return taken
        raise AssertionError("fits() let a value pass that no option takes")

    def shape(self) -> dict:
        return {"anyOf": [option.schema() for option in self.options]}


class _List(_Node):
    """A list of values of one kind."""

    types = ("list",)

    def __init__(
        self, items: _Node, says: str, least: int = 0, unique: bool = False, **more: Any
    ) -> None:
        super().__init__(says, **more)
        self.items = items
        self.least = least
        self.unique = unique

    @property
    def hides(self) -> bool:
        return self.secret or self.items.hides

    def read(self, value: Any, path: tuple, errors: list) -> Any:
        if len(value) < self.least:
            errors.append(_error(path, self, value))
            return _UNSET
        taken = [self.items.take(item, (*path, n), errors) for n, item in enumerate(value)]
        if self.unique:
            # The raw values, as JSON Schema does: '80' and 80 are two, 80 and 80.0 are one.
            seen: dict[Any, int] = {}
            for number, item in enumerate(value):
                if not isinstance(item, (str, int, float)):
                    continue
                key = (isinstance(item, bool), item)
                if key in seen:
                    errors.append(
                        _error(
                            (*path, number),
                            self.items,
                            item,
                            f"each value once; item {seen[key]} is the same",
                        )
                    )
                else:
                    seen[key] = number
        return [item for item in taken if item is not _UNSET]

    def fill(self, value: Any) -> Any:
        return None if value is None else [self.items.fill(item) for item in value]

    def shape(self) -> dict:
        shape: dict[str, Any] = {"type": "array", "items": self.items.schema()}
        if self.least:
            shape["minItems"] = self.least
        if self.unique:
            shape["uniqueItems"] = True
        return shape


class _Mapping(_Node):
    """A mapping with fixed keys."""

    types = ("mapping",)

    def __init__(
        self,
        keys: dict[str, _Node],
        required: tuple[str, ...] = (),
        one: bool = False,
        **more: Any,
    ) -> None:
        more.setdefault("default", _BY_KEYS)
        says = f"a mapping of {_listing(sorted(keys))}" if keys else "an empty mapping"
        if one:
            says = f"a mapping with one of {_listing(sorted(keys), 'or')}"
        super().__init__(says, **more)
        self.keys = keys
        self.required = required
        self.one = one

    @property
    def hides(self) -> bool:
        return self.secret or any(node.hides for node in self.keys.values())

    def read(self, value: Any, path: tuple, errors: list) -> Any:
        taken = {}
        for key, item in value.items():
            node = self.keys.get(key) if isinstance(key, str) else None
            if node is None:
                errors.append(_unknown_key(path, key, item, self))
                continue
            item = node.take(item, (*path, key), errors)
            if item is not _UNSET:
                taken[key] = item
        for key in self.required:
            if key not in value:
                errors.append(_missing((*path, key), self.keys[key]))
        if self.one and len(value) != 1:
            errors.append(_error(path, self, value))
        return taken

    def fill(self, value: Any) -> Any:
        if value is None:
            return None
        # Of keys that exclude each other, those that are there.
        wanted = value if self.one else self.keys
        return {
            key: self.keys[key].fill(value[key]) if key in value else self.keys[key].fresh()
            for key in wanted
        }

    def fresh(self) -> Any:
        return self.fill({}) if self.default is _BY_KEYS else super().fresh()

    def shape(self) -> dict:
        shape: dict[str, Any] = {
            "type": "object",
            "properties": {key: node.schema() for key, node in self.keys.items()},
            "additionalProperties": False,
        }
        if self.required:
            shape["required"] = list(self.required)
        if self.one:
            shape.update(minProperties=1, maxProperties=1)
        return shape


class _Table(_Node):
    """A mapping with free keys of one kind and values of one kind."""

    types = ("mapping",)

    def __init__(self, key: _Text, value: _Node, says: str, least: int = 0, **more: Any) -> None:
        more.setdefault("default", {})
        super().__init__(says, **more)
        self.key = key
        self.value = value
        self.least = least

    @property
    def hides(self) -> bool:
        return self.secret or self.value.hides

    def read(self, value: Any, path: tuple, errors: list) -> Any:
        taken = {}
        if len(value) < self.least:
            errors.append(_error(path, self, value))
        for key, item in value.items():
            if not isinstance(key, str):
                errors.append(_odd_key(path, key, self.key.says))
                continue
            expected = self.key.wrong(key)
            if expected is not None:
                hint = _did_you_mean(key, self.key.choices) if self.key.choices else ""
                errors.append(_key_error(path, key, expected, hint))
                continue
            item = self.value.take(item, (*path, key), errors)
            if item is not _UNSET:
                taken[key] = item
        return taken

    def fill(self, value: Any) -> Any:
        return {key: self.value.fill(item) for key, item in value.items()}

    def shape(self) -> dict:
        names = self.key.shape()
        del names["type"]  # a property's name is always a string
        shape: dict[str, Any] = {
            "type": "object",
            "propertyNames": names,
            "additionalProperties": self.value.schema(),
        }
        if self.least:
            shape["minProperties"] = self.least
        return shape


# --- The words of an error --------------------------------------------------------------------


def _listing(words: Any, last: str = "and") -> str:
    words = [str(word) for word in words]
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


def _shown(node: _Node | None, value: Any) -> str:
    """A value with its YAML type, without anything that may be a secret."""
    kind = _type_name(value)
    article = "an" if kind[0] in "aeiou" else "a"
    if value is None:
        return "nothing (null)"
    if kind == "list":
        return f"a list of {len(value)}" if value else "an empty list"
    if kind == "mapping":
        return f"a mapping of {len(value)}" if value else "an empty mapping"
    if node is None or node.hides:
        return f"{article} {kind} (not shown)"
    text = ascii(value) if kind == "string" else repr(value)
    if len(text) > 120:
        text = f"{text[:100]}... ({len(text)} characters)"
    return f"{text} ({kind})"


def _join(path: tuple) -> str:
    return ":".join(part if isinstance(part, str) else repr(part) for part in (_ROOT, *path))


def _safe_key(key: Any) -> str:
    """A key that a person wrote, made fit for one line of text."""
    if not isinstance(key, str):
        return repr(key)
    name = re.split("[:=]", key, maxsplit=1)[0]
    shown = ascii(name)[1:-1]
    if name != key:
        # `SECRET_KEY:value`, without a blank: what follows may be a secret.
        return f"{shown[:70]}..."
    return shown if len(shown) <= 80 else f"{shown[:70]}..."


def _error(
    path: tuple,
    node: _Node | None,
    value: Any,
    expected: str = "",
    hint: str = "",
    rule: str = "shape",
) -> dict:
    return {
        "path": _join(path),
        "found": _shown(node, value),
        "expected": expected or (node.expected() if node is not None else ""),
        "hint": hint,
        "rule": rule,
    }


def _meaning(path: tuple, found: str, expected: str, hint: str = "") -> dict:
    """An error that no schema can see: between two values, or between a value and the host."""
    return {
        "path": _join(path),
        "found": found,
        "expected": expected,
        "hint": hint,
        "rule": "meaning",
    }


def _missing(path: tuple, node: _Node) -> dict:
    hint = f"for example {_yaml_inline(node.example)}" if node.example is not None else ""
    return {
        "path": _join(path),
        "found": "no such key",
        "expected": node.expected(),
        "hint": hint,
        "rule": "shape",
    }


def _key_error(path: tuple, key: str, expected: str, hint: str = "") -> dict:
    shown = _safe_key(key)
    return {
        "path": _join((*path, shown)),
        "found": f"the key '{shown}'",
        "expected": expected,
        "hint": _blank_hint(key) or hint,
        "rule": "shape",
    }


def _blank_hint(key: str) -> str:
    return "write a blank after the colon" if ":" in key else ""


def _odd_key(path: tuple, key: Any, says: str) -> dict:
    hint = "quote the key"
    if isinstance(key, bool):
        hint = "YAML reads an unquoted on, off, yes, no, true or false as a boolean: quote the key"
    elif key is None:
        hint = "nothing, or ~, stands before the colon: write the key"
    return {
        "path": _join((*path, _safe_key(key))),
        "found": f"a key that is {_shown(None, key).replace(' (not shown)', '')}: {key!r}",
        "expected": says or "a key that is a string",
        "hint": hint,
        "rule": "shape",
    }


def _unknown_key(path: tuple, key: Any, item: Any, parent: _Mapping) -> dict:
    if not isinstance(key, str):
        return _odd_key(path, key, _one_of(parent))
    hint = _blank_hint(key) or _did_you_mean(key, parent.keys)
    if re.fullmatch(r"(?i:web[-_]?sockets?|asgi|channels|daphne)", key):
        hint = (
            "nginx and uWSGI speak the uwsgi protocol here, which carries no websockets: let a "
            "server of its own serve them, and pass their path on to it in snippet"
        )
    if not hint:
        # The right key in the wrong place, like processes beside uwsgi.
        homes = _homes().get(key, ())
        if homes:
            hint = f"{key} belongs to {_listing(homes, 'or')}"
    return {
        "path": _join((*path, _safe_key(key))),
        # Never the value: a misspelt env or password would put a secret into the report.
        "found": f"an unknown key with {_shown(None, item).replace(' (not shown)', '')}",
        "expected": _one_of(parent),
        "hint": hint,
        "rule": "shape",
    }


def _one_of(parent: _Mapping) -> str:
    return (
        f"one of {', '.join(parent.keys)}" if parent.keys else "nothing, as there are no keys yet"
    )


def _did_you_mean(word: str, known: Any) -> str:
    plain = {re.sub(r"[-_. ]", "", name.lower()): name for name in known}
    found = difflib.get_close_matches(re.sub(r"[-_. ]", "", word.lower()), plain, 1, 0.7)
    return f"did you mean {plain[found[0]]}?" if found else ""


@functools.lru_cache(maxsize=1)
def _homes() -> dict[str, tuple[str, ...]]:
    """Where in the definition each key lives: {"processes": ("sites:SITE:uwsgi",)}."""
    homes: dict[str, list[str]] = {}

    def walk(node: _Node, path: tuple[str, ...]) -> None:
        if isinstance(node, _Mapping):
            for key, child in node.keys.items():
                homes.setdefault(key, []).append(":".join(path) or _ROOT)
                walk(child, (*path, key))
        elif isinstance(node, _Plain):
            for option in node.options:
                walk(option, path)

    for key, node in _PILLAR.keys.items():
        homes.setdefault(key, []).append(_ROOT)
        if key == "sites":
            walk(_SITE, ("sites", "SITE"))
        elif key != "site_defaults":
            walk(node, (key,))
    return {key: tuple(paths) for key, paths in homes.items() if len(paths) <= 3}


def _base_60(value: int) -> str:
    """YAML 1.1 reads digits with colons as a number to the base 60; say so where it fits."""
    if value < 60:
        return ""
    parts: list[str] = []
    rest = value
    while rest >= 60 and len(parts) < 2:
        rest, low = divmod(rest, 60)
        parts.insert(0, f"{low:02d}")
    text = ":".join([str(rest), *parts])
    return f"if {text} was meant: YAML reads that as base 60, {value}; quote it"


def _type_hint(node: _Node, value: Any) -> str:
    """Why YAML may have read something else than what was meant."""
    wanted = node.types
    if value is None:
        return "nothing, ~ or null stands after the colon: write a value, or leave the key out"
    if isinstance(value, bool):
        if "string" in wanted:
            return "YAML reads an unquoted on, off, yes, no, true or false as a boolean: quote it"
        return "YAML reads on, off, yes, no, true and false as booleans"
    if isinstance(value, float):
        if "string" in wanted:
            return "YAML reads an unquoted 3.10 as the number 3.1: quote it"
        return "write it without the point" if "integer" in wanted else ""
    if isinstance(value, int):
        if getattr(node, "mode", False):
            return "quote it, like '0660': YAML reads 0640 as the number 640 (or 416, its octal)"
        if "string" in wanted:
            more = "" if node.hides else _base_60(value)
            return f"quote it{'; ' + more if more else ': YAML reads digits as a number'}"
        if "boolean" in wanted:
            return "write true or false"
        return "write it as a list, with - or []" if "list" in wanted else ""
    if isinstance(value, str):
        return _string_hint(node, value)
    if isinstance(value, (list, tuple)):
        return "one value, not a list" if "mapping" not in wanted else "keys with colons, no dashes"
    if isinstance(value, dict):
        if "list" in wanted:
            return "a list has a dash, or brackets: - value"
        return "a colon and a space inside a value make it a mapping: quote it"
    return f"YAML made {type(value).__name__} of it: quote it" if "string" in wanted else ""


def _string_hint(node: _Node, value: str) -> str:
    wanted = node.types
    if "integer" in wanted:
        if node.hides:
            return ""
        if re.fullmatch(r"0[0-9]*[89][0-9]*", value):
            return f"YAML reads {value} as text, as 8 and 9 are no octal digits: write {int(value)}"
        if re.fullmatch(r"[0-9]+", value):
            return "remove the quotes"
        if re.fullmatch(r"[0-9]+e[0-9]+", value):
            return "YAML reads 1e3 as text: write the digits"
        return ""
    if "boolean" in wanted:
        if value.lower() in ("y", "n"):
            return "YAML reads y and n as text: write true or false"
        if value.lower() in ("true", "false", "yes", "no", "on", "off"):
            return "remove the quotes"
        return ""
    if "list" in wanted:
        return "write it as a list, with - or []"
    if "mapping" in wanted:
        return "write keys with colons under it"
    return ""


def _text_hint(value: str) -> str:
    if value == "":
        return "it is empty"
    if value != value.strip():
        return "it begins or ends with a blank or a newline"
    if "\n" in value:
        return "it holds a newline"
    if re.fullmatch(r"0[0-9]*[89][0-9]*", value):
        return f"YAML reads {value} as text, as 8 and 9 are no octal digits: write {int(value)}"
    return ""


def _yaml_inline(value: Any) -> str:
    """One value as a person would write it in YAML on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, list):
        return f"[{', '.join(_yaml_inline(item) for item in value)}]"
    if isinstance(value, dict):
        inside = ", ".join(f"{_yaml_inline(k)}: {_yaml_inline(v)}" for k, v in value.items())
        return f"{{{inside}}}"
    # YAML 1.1 takes a string like this for itself; all others are quoted.
    special = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}
    plain = re.fullmatch(r"[A-Za-z/_.][A-Za-z0-9/_.+-]*(?::[A-Za-z/_][A-Za-z0-9/_.+-]*)?", value)
    if plain and value.lower() not in special:
        return value
    return "'" + value.replace("'", "''") + "'"


# --- The definition ---------------------------------------------------------------------------
#
# Patterns must mean the same in Python and in ECMAScript: classes are spelled out (no \d, \w),
# ends are implied (a pattern has to match the whole value).

_PATH = r"(?:/(?!\.\.?(?:/|$))[A-Za-z0-9._@+-]+)+"
_RELATIVE = r"(?!-)(?!\.\.?(?:/|$))[A-Za-z0-9._@+-]+(?:/(?!\.\.?(?:/|$))[A-Za-z0-9._@+-]+)*"
_PATH_SAYS = "an absolute path without . or .. in it, of letters, digits and ._@+-"
_RELATIVE_SAYS = "a path inside the project, without . or .. in it, of letters, digits and ._@+-"
_ACCOUNT = r"[a-z_][a-z0-9_-]{0,31}"
_ACCOUNT_SAYS = "a name of 1 to 32 of a-z, 0-9, _ and -, beginning with a letter or _"
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = rf"{_LABEL}(?:\.{_LABEL})*"
_PORT = r"(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_]*"
_DOTTED = rf"{_IDENTIFIER}(?:\.{_IDENTIFIER})*"
# PEM (RFC 7468), without the headers of an encrypted key and without text between the blocks.
_BASE64 = r"[A-Za-z0-9+/=\r\n]+"
_PEM_CHAIN = rf"(?:-----BEGIN CERTIFICATE-----{_BASE64}-----END CERTIFICATE-----[\r\n]*)+"
_PEM_KEY = (
    rf"(?:-----BEGIN EC PARAMETERS-----{_BASE64}-----END EC PARAMETERS-----[\r\n]+)?"
    rf"-----BEGIN (?:RSA |EC )?PRIVATE KEY-----{_BASE64}-----END (?:RSA |EC )?PRIVATE KEY-----[\r\n]*"
)
# No control character but the tab (DEL is one too), and no half of a surrogate pair, which YAML's
# "\ud800" yields and no file can hold.
_ONE_LINE = r"[^\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]*"

# The same, not empty and without blanks around it, which uWSGI would drop.
_INK = (
    r"[^\x00-\x20\x7f\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff\ud800-\udfff]"
)
_TRIMMED = rf"{_INK}(?:{_ONE_LINE}{_INK})?"

#: Accounts that a distribution, a cloud image or a service brings: a site that ran as one of
#: them would share its files and powers (the cloud images' first users are root through sudo).
_SYSTEM_ACCOUNTS = (
    "root daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc gnats "
    "nobody nogroup messagebus sshd ssh syslog uuidd tcpdump tss landscape polkitd pollinate "
    "ntp ntpsec chrony fwupd-refresh usbmux dnsmasq avahi rtkit lxd statd bind postfix exim "
    "debian-exim dovecot vmail postgres mysql mariadb redis memcache memcached mongodb rabbitmq "
    "elasticsearch nginx apache uwsgi salt docker libvirt-qemu prometheus grafana admin ubuntu "
    "debian ec2-user default"
)
#: Groups that are as good as root, or open other people's data.
_SYSTEM_GROUPS = (
    "sudo wheel adm disk shadow kmem tty dialout cdrom floppy tape audio video plugdev staff "
    "users utmp input kvm render sgx crontab ssl-cert netdev lxd sasl src operator"
)


def _words(words: str) -> str:
    """A pattern for any of some words; ECMAScript knows no escaped dash."""
    return "(?:" + "|".join(re.escape(word).replace(r"\-", "-") for word in words.split()) + ")"


_RESERVED_ACCOUNT = (
    rf"{_words(_SYSTEM_ACCOUNTS)}|systemd-.*|_.*",
    "the name belongs to the system, to a service or to a cloud image's first user",
)
_RESERVED_GROUP = (
    rf"{_words(_SYSTEM_GROUPS)}",
    "the group belongs to the system, and some such groups are as good as root",
)
# Debian's packages have uwsgi-emperor.service and the templates uwsgi-app@.service and
# uwsgi-app@.socket; what else a host has is seen there.
_RESERVED_SITE = (
    r"app|emperor|.*-preflight",
    "its units would carry the name of another service's",
)
_OPEN_PLACES = (
    r"/(?:tmp|var/tmp|dev/shm)(?:/.*)?",
    "anybody on the host can put a file of that name there first",
)
_SYSTEM_PLACES = (
    (
        r"/(?:bin|boot|dev|etc|home|lib|lib32|lib64|libx32|lost\+found|media|mnt|opt|proc|root|run"
        r"|sbin|srv|sys|usr|var|var/[^/]*|usr/local|var/lib/[^/]*)"
        r"|/(?:bin|boot|dev|etc|lib|lib32|lib64|libx32|proc|root|run|sbin|sys)/.*|/usr/(?!local/).*"
    ),
    "it is the system's own directory; a project lives in one of its own, like /srv/mysite",
)
_SYSTEM_SOCKET_PLACES = (
    (
        r"/(?:bin|boot|dev|etc|lib|lib32|lib64|libx32|proc|root|sbin|sys|usr)(?:/.*)?"
        r"|/run/(?:systemd|uwsgi-preflight[^/]*|dbus|udev|user|lock)/.*|/run/(?:nginx\.pid|salt.*)"
    ),
    "that place is the system's or the formula's own",
)

_UNSAFE_OPTION = (
    r"[\s\S]*(?:%|\$\(|@\()[\s\S]*",
    "uWSGI replaces %, $( and @( in its configuration, and @(exec://...) even runs a command",
)

_PIP_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_PIP_REQUIREMENT = (
    rf"{_PIP_NAME}(?:\[{_PIP_NAME}(?:,{_PIP_NAME})*\])?"
    r"(?: ?(?:===?|~=|!=|<=?|>=?) ?[A-Za-z0-9.*+!_-]+"
    r"(?:, ?(?:===?|~=|!=|<=?|>=?) ?[A-Za-z0-9.*+!_-]+)*)?"
)
_URL = r"(?:https?|file)://[A-Za-z0-9._~:/\[\]-]+"


def _path(description: str, **more: Any) -> _Text:
    return _Text(_PATH_SAYS, _PATH, most=1024, description=description, **more)


def _repository(default: dict[str, Any], description: str) -> _Mapping:
    return _Mapping(
        {
            "uris": _Text(
                "an http, https or file URL without a user, a password or a query",
                _URL,
                default=default["uris"],
                description="Where the packages are.",
                example="https://mirror.example.org/nginx/ubuntu",
            ),
            "suites": _Text(
                "the name of a suite",
                r"[A-Za-z0-9][A-Za-z0-9._/-]*",
                nullable=True,
                default=None,
                description="The suite; null is the release's codename.",
                example="noble",
            ),
            "components": _List(
                _Text("the name of a component", r"[A-Za-z0-9][A-Za-z0-9._/-]*"),
                "a list with at least one component",
                least=1,
                unique=True,
                default=default["components"],
                description="The components.",
                example=default["components"],
            ),
            "fingerprints": _List(
                _Text(
                    "a full fingerprint of 40 or 64 digits 0-9 and A-F",
                    r"[0-9A-F]{40}(?:[0-9A-F]{24})?",
                ),
                "a list with at least one full fingerprint",
                least=1,
                unique=True,
                default=default["fingerprints"],
                description="The keys that may sign it, by full fingerprint; no other is accepted.",
                example=default["fingerprints"][:1],
            ),
            "key": _Text(
                "an http, https or file URL, a salt:// path or an absolute path",
                rf"(?:https?|file)://[A-Za-z0-9._~:/?=&%+\[\]-]+|salt:/{_PATH}|{_PATH}",
                default=default["key"],
                nullable=True,
                description="Where the keys are fetched from; the fingerprints are checked. null: "
                "each by its fingerprint from keyserver.ubuntu.com.",
                example="salt://keys/nginx.asc",
            ),
        },
        description=description,
    )


#: nginx's package sources besides the distribution, by the value of `nginx:repo`.  A further source
#: is one more entry.  ``{ppa}`` is the pillar's `nginx:ppa`, ``{name}`` the same with a hyphen.
#: ``title`` is for messages, ``origin`` is what its Release files carry, ``system`` the only one that
#: it has packages for.
_SOURCES: dict[str, dict[str, Any]] = {
    "ppa": {
        "title": "the PPA {ppa}",
        "origin": "LP-PPA-{name}",
        "system": "Ubuntu",
        "uris": _Derived("https://ppa.launchpadcontent.net/OWNER/NAME/ubuntu"),
        "address": "https://ppa.launchpadcontent.net/{ppa}/ubuntu",
        "components": ["main"],
        # Of nginx/stable.  Another PPA has other keys: the pillar pins them.
        "fingerprints": ["8B3981E7A6852F782CC4951600A6F0A3C300EE8C"],
        "key": None,
    },
    # https://nginx.org/en/linux_packages.html: the key of 2011 and the two that nginx.org added in
    # 2024.
    "nginx.org": {
        "title": "nginx.org",
        "origin": "nginx",
        "system": None,
        "uris": "https://nginx.org/packages/debian",
        "address": None,
        "components": ["nginx"],
        "fingerprints": [
            "573BFD6B3D8FBC641079A6ABABF5BD827BD9BF62",
            "8540A6F18833A80E9C1653A42FD21310B49F6B46",
            "9E9BE90EACBCDE69FE9B204CBCDCD8A38D88A2B3",
        ],
        "key": "https://nginx.org/keys/nginx_signing.key",
    },
}
_STABLE = "nginx/stable"
# Gives out one key for each question, whatever else its owner has.
_KEYSERVER = "https://keyserver.ubuntu.com/pks/lookup?op=get&options=mr&search=0x{}"

#: The grains that choose a platform's values, the most particular last.
_GRAINS = ("os_family", "os", "osfinger")
#: What differs between platforms, laid over the defaults: by grain and its value.
_PLATFORMS: tuple[tuple[str, str, dict], ...] = (
    ("os_family", "Debian", {"nginx": {"repo": "distro"}}),
    (
        "os",
        "Ubuntu",
        {
            "nginx": {"repo": "auto"},
            "lookup": {"repos": {"nginx.org": {"uris": "https://nginx.org/packages/ubuntu"}}},
        },
    ),
)


def _lookup() -> _Mapping:
    package = r"[a-z0-9][a-z0-9.+-]+"
    return _Mapping(
        {
            "nginx_dir": _path("nginx's configuration.", default="/etc/nginx"),
            "nginx_package": _Text(
                "the name of a Debian package",
                package,
                default="nginx",
                description="The package that is nginx.",
                example="nginx-full",
            ),
            "nginx_service": _Text(
                "the name of a unit without .service",
                r"[A-Za-z0-9][A-Za-z0-9_.-]*",
                default="nginx",
                description="nginx's systemd unit.",
            ),
            "uwsgi_dir": _path("The sites' uWSGI configuration.", default="/etc/uwsgi"),
            "uwsgi_log_dir": _path("The log files of the sites' uWSGI.", default="/var/log/uwsgi"),
            "state_dir": _path(
                "What the formula keeps on the host: virtual environments, staged trees.",
                default="/var/lib/nginx_uwsgi_django",
            ),
            "unit_dir": _path("Where systemd units are written.", default="/etc/systemd/system"),
            "repos": _Mapping(
                {
                    kind: _repository(source, f"The source of `nginx:repo: {kind}`.")
                    for kind, source in _SOURCES.items()
                },
                description="The package sources that `nginx:repo` chooses from.",
            ),
        },
        description="The platform's names and paths; rarely needed.",
    )


def _login(what: str) -> dict[str, _Node]:
    """A user's name and a password, for a server that asks."""
    return {
        "user": _Text(
            "a name of letters, digits and ._@+-",
            r"[A-Za-z0-9_][A-Za-z0-9._@+-]*",
            most=256,
            nullable=True,
            default=None,
            description=f"The user's name {what}.",
            example="deploy",
        ),
        "password": _Text(
            "text on one line, without blanks around it",
            _TRIMMED,
            most=4096,
            nullable=True,
            default=None,
            secret=True,
            description=f"The password or token {what}.",
            example="...",
        ),
    }


_REMOTE = r"[A-Za-z0-9._~:/@%+,=-]+"


def _source() -> _Mapping:
    return _Mapping(
        {
            "git": _Mapping(
                {
                    "url": _Text(
                        "an https, http, ssh or file URL without a password, or user@host:path",
                        rf"(?:https?|file)://(?!-)[A-Za-z0-9._~:/%+,=-]+|ssh://(?!-){_REMOTE}"
                        rf"|[A-Za-z0-9_][A-Za-z0-9._-]*@[A-Za-z0-9][A-Za-z0-9.-]*:(?!-){_REMOTE}",
                        most=1024,
                        private=True,
                        description="The repository.",
                        example="https://git.example.org/mysite.git",
                        advice=(
                            (
                                r"https?://[^/]*@.*",
                                "the user's name and the password have keys of their own",
                            ),
                        ),
                    ),
                    "revision": _Text(
                        "a branch, a tag or a full hash",
                        r"(?![/.])(?:(?!\.\.|//|/\.|\.lock(?:/|$))[A-Za-z0-9._/+-])+(?<![./])",
                        most=256,
                        description="What of it is the release: a branch, a tag, or the full hash "
                        "of a commit, which alone is the same for ever.",
                        example="v1.4.2",
                        refuse=((r"-.*", "git would take it for an option"),),
                    ),
                    "key": _Text(
                        "a private key without a passphrase, in PEM, over several lines",
                        r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----\n(?:[A-Za-z0-9+/=]+\n)+"
                        r"-----END (?:[A-Z]+ )*PRIVATE KEY-----\n?",
                        most=32768,
                        nullable=True,
                        default=None,
                        secret=True,
                        description="The deploy key of a private repository, for ssh. It is in no "
                        "file of the host's at any time.",
                        advice=((r"[^\n]*", "write it after a | so that its lines are kept"),),
                    ),
                    "host_keys": _List(
                        _Text(
                            "a line of known_hosts, like `git.example.org ssh-ed25519 AAAA...`",
                            r"[A-Za-z0-9.,*?\[\]:|=+/-]+ (?:ssh|ecdsa|sk)-[a-z0-9@.-]+ "
                            r"[A-Za-z0-9+/]+=*",
                            most=4096,
                        ),
                        "a list of lines",
                        unique=True,
                        default=[],
                        description="The keys of the ssh server, as `ssh-keyscan` prints them; no "
                        "other is accepted.",
                        example=[
                            "github.com ssh-ed25519 "
                            "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
                        ],
                    ),
                    **_login("for https"),
                },
                required=("url", "revision"),
                description="A repository of git's. Submodules and files kept by LFS are not "
                "followed; `project:exclude` leaves files out.",
            ),
            "archive": _Mapping(
                {
                    "url": _Text(
                        "an https, http or file URL without a password, or a salt:// path",
                        rf"(?:https?|file)://[A-Za-z0-9._~:/?=&%+,-]+|salt:/{_PATH}",
                        most=1024,
                        private=True,
                        description="A tar archive, plain or compressed by gzip, bzip2 or xz, or a "
                        "zip archive.",
                        example="https://ci.example.org/mysite-1.4.2.tar.gz",
                        advice=(
                            (
                                r"https?://[^/]*@.*",
                                "the user's name and the password have keys of their own",
                            ),
                        ),
                    ),
                    "sha256": _Text(
                        "64 digits 0-9 and a-f",
                        r"[0-9a-f]{64}",
                        description="The checksum of the archive; another file is refused.",
                        example="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                        advice=((r"[0-9a-fA-F]{64}", "write it in small letters"),),
                    ),
                    "strip": _Switch(
                        default=True,
                        description="Where all of the archive is in one directory, take what is "
                        "in that.",
                    ),
                    **_login("for http and https"),
                },
                required=("url", "sha256"),
                description="An archive.",
            ),
            "salt": _Text(
                "a directory on Salt's file server, like salt://examples/mysite",
                rf"salt:/{_PATH}(?:\?saltenv=[A-Za-z0-9._-]+)?",
                description="A directory on Salt's file server; `?saltenv=...` after it "
                "names another environment than the run's.",
                example="salt://examples/mysite",
            ),
        },
        one=True,
        nullable=True,
        default=None,
        description="Where releases come from, one of the three; null when somebody puts the tree "
        "there.",
        example={"salt": "salt://examples/mysite"},
    )


def _names(description: str) -> _List:
    return _List(
        _Text("a name of letters, digits and ._-", r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"),
        "a list of names",
        unique=True,
        default=[],
        description=description,
        example=["postgres"],
    )


def _hooks() -> _Mapping:
    """Commands at the steps of a release, see release_hook."""
    steps = {
        "fetch": "the release is copied to the host",
        "build": "its virtual environment is built",
        "migrate": "migrations are applied",
        "switch": "uWSGI runs another release",
    }
    points = {
        f"{when}_{step}": _List(
            _List(
                _Text("a word on one line", _ONE_LINE, most=4096, example="python"),
                "a command: a list with at least one word",
                least=1,
            ),
            "a list of commands",
            default=[],
            description=f"Commands to run {when} {what}.",
            example=[["python", "-m", "django", "clearsessions"]],
        )
        for step, what in steps.items()
        for when in ("before", "after")
    }
    return _Mapping(
        {
            **points,
            "timeout": _Number(
                "seconds from 1 to 86400",
                1,
                86400,
                default=600,
                description="Seconds until a command that has not ended has failed.",
                example=60,
            ),
        },
        description="Commands at the steps of a release, each a list of words, run by no shell: as "
        "the site's user, with the site's environment, in the release. One that fails stops the "
        "run, and what serves goes on serving. See [releases.md](releases.md).",
    )


def _project() -> _Mapping:
    return _Mapping(
        {
            "path": _path(
                "Without a source: the project's tree, put there by somebody. With a source: the "
                "directory that holds releases, current and shared.",
                default=_Derived("/srv/SITE"),
                example="/srv/mysite",
                refuse=(_SYSTEM_PLACES, _OPEN_PLACES),
            ),
            "source": _source(),
            "release": _Text(
                "the ID of a release, 12 digits 0-9 and a-f",
                r"[0-9a-f]{12}",
                nullable=True,
                default=None,
                description="A release that is on the host, to stay with instead of what the "
                "source has (a rollback that lasts); see `django_release.releases`.",
                example="4f2a9c01d7e3",
            ),
            "keep": _Number(
                "a whole number from 1 to 100",
                1,
                100,
                default=5,
                description="Releases that were live last and stay for a way back, the live one "
                "among them. Another one stays as long as a process runs from it.",
                example=10,
            ),
            "wsgi": _Text(
                "module:callable",
                rf"{_DOTTED}:{_DOTTED}",
                description="The WSGI application: a Python module and the name in it.",
                example="mysite.wsgi:application",
                advice=(
                    (
                        rf"{_DOTTED}",
                        "add the callable's name, like mysite.wsgi:application",
                    ),
                    (r".*\.py.*", "a module as Python imports it, not a file"),
                ),
                refuse=(
                    (
                        r"(?:.*\.)?asgi:.*",
                        "uWSGI serves WSGI, and no websockets: name the project's wsgi module",
                    ),
                ),
            ),
            "settings": _Text(
                "a Python module, like mysite.settings",
                _DOTTED,
                description="Django's settings module, the value of DJANGO_SETTINGS_MODULE.",
                example="mysite.settings",
                advice=((r".*\.py|.*/.*", "a module as Python imports it, not a file"),),
            ),
            "requirements": _Text(
                _RELATIVE_SAYS,
                _RELATIVE,
                most=1024,
                nullable=True,
                default=_Derived("requirements.txt; null where venv is given"),
                description="What the project needs: a requirements file for pip, a pyproject.toml, "
                "or a uv.lock with a pyproject.toml beside it; null when it needs nothing.",
                example="requirements.txt",
            ),
            "packages": _List(
                _Text(
                    "the name of a Debian package",
                    # apt-get takes NAME- for a word to remove NAME.
                    r"[a-z0-9][a-z0-9.+-]*[a-z0-9+]",
                    most=128,
                ),
                "a list of names of Debian packages",
                unique=True,
                default=[],
                description="Debian packages that the project needs besides Python's, e.g. to build "
                "its requirements; installed before its environment is built, and removed by "
                "clean where the formula brought them.",
                example=["libpq-dev", "gcc", "gettext"],
            ),
            "extras": _names("Optional dependencies of the pyproject.toml that are installed too."),
            "groups": _names("Dependency groups of the pyproject.toml that are installed too."),
            "indexes": _List(
                _Mapping(
                    {
                        "url": _Text(
                            "an https, http or file URL without a user, a password or a query",
                            r"(?:https?|file)://[A-Za-z0-9._~:/%+,=\[\]-]+",
                            most=1024,
                            private=True,
                            description="The index.",
                            example="https://pypi.example.org/simple/",
                            advice=(
                                (
                                    r"https?://[^/]*@.*",
                                    "the user's name and the password have keys of their own",
                                ),
                            ),
                        ),
                        **_login("for it"),
                    },
                    required=("url",),
                ),
                "a list of indexes",
                nullable=True,
                default=[],
                description="Package indexes, instead of those that the host's own pip.conf names; "
                "pip treats them all alike. null: none, all comes from `wheels`.",
                example=[{"url": "https://pypi.example.org/simple/"}],
            ),
            "wheels": _List(
                _Text(f"{_RELATIVE_SAYS}, or an absolute one", rf"{_PATH}|{_RELATIVE}", most=1024),
                "a list of directories",
                unique=True,
                default=[],
                description="Directories with wheels that pip looks in as well.",
                example=["/srv/wheels"],
            ),
            "env": _Table(
                _Text(
                    "a name of letters, digits and _, not beginning with a digit",
                    _IDENTIFIER,
                    most=256,
                    refuse=(
                        ("DJANGO_SETTINGS_MODULE", "project:settings sets it"),
                        ("UWSGI_.*", "uWSGI takes variables of that name for its options"),
                        (
                            (
                                "LISTEN_(?:FDS|PID|FDNAMES)|NOTIFY_SOCKET|WATCHDOG_.*|MAINPID"
                                "|INVOCATION_ID|CREDENTIALS_DIRECTORY|RUNTIME_DIRECTORY"
                            ),
                            "systemd sets it",
                        ),
                    ),
                ),
                _Text("text on one line", _ONE_LINE, most=65536, secret=True),
                "a mapping of names and texts",
                description="Environment variables of the application and of its management "
                "commands. The place for secrets: never in a diff, a log or a job cache.",
                example={"SECRET_KEY": "..."},
                secret=True,
            ),
            "user": _Text(
                _ACCOUNT_SAYS,
                _ACCOUNT,
                most=32,
                default=_Derived("the site's name"),
                description="The system user that the application runs as; created when missing. "
                "Each site has its own, and it is not nginx's.",
                example="mysite",
                refuse=(_RESERVED_ACCOUNT,),
            ),
            "group": _Text(
                _ACCOUNT_SAYS,
                _ACCOUNT,
                most=32,
                default=_Derived("the user's name"),
                description="The user's primary group; created when missing. It is not nginx's.",
                example="mysite",
                refuse=(_RESERVED_ACCOUNT, _RESERVED_GROUP),
            ),
            "python": _path(
                "The interpreter that the virtual environment is made with; of pyenv's, the one in "
                "versions and not the shim.",
                default="/usr/bin/python3",
                example="/opt/pyenv/versions/3.12.9/bin/python",
            ),
            "venv": _path(
                "A virtual environment that the operator keeps (pyenv, for example); null: the "
                "formula makes its own.",
                nullable=True,
                default=None,
                example="/home/deploy/.pyenv/versions/mysite",
            ),
            "static": _Mapping(
                {
                    "url": _Text(
                        "a path that begins and ends with /",
                        r"/(?:(?!\.\.?/)[A-Za-z0-9._~@-]+/)+",
                        most=256,
                        default="/static/",
                        description="Where nginx serves the collected files; Django's STATIC_URL.",
                        example="/assets/",
                        advice=((r"/.*[^/]", "add a / at the end"), (r"[^/].*", "begin with a /")),
                    ),
                    "collect": _Switch(
                        default=True,
                        description="Run collectstatic for a release of a project that has the "
                        "app django.contrib.staticfiles; STATIC_ROOT has to be set then.",
                    ),
                },
                description="Static files.",
            ),
            "check": _Mapping(
                {
                    "deploy": _Text(
                        "a level of Django's checks",
                        choices=("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG"),
                        nullable=True,
                        default="ERROR",
                        description="The level from which on what `manage.py check --deploy` says "
                        "is a failure; null is `manage.py check` without --deploy.",
                        example="WARNING",
                    ),
                    "migrations": _Switch(
                        default=False,
                        description="A model that no migration makes so is a failure "
                        "(`makemigrations --check`).",
                    ),
                    "hosts": _Switch(
                        default=True,
                        description="A server name, or the health host, that ALLOWED_HOSTS "
                        "refuses is a failure.",
                    ),
                    "data": _Switch(
                        default=True,
                        description="A SQLite database or a MEDIA_ROOT that the site's user cannot "
                        "write is a failure, and so is a new, empty database where the source "
                        "brings one or another was in use before.",
                    ),
                },
                description="What a release has to pass before it gets any request, besides the "
                "import of its WSGI application.",
            ),
            "migrate": _Plain(
                _Switch(),
                _Mapping(
                    {
                        "host": _Text(
                            "a minion's ID",
                            r"[A-Za-z0-9][A-Za-z0-9._-]*",
                            most=253,
                            description="The ID of the minion that migrates.",
                            example="web1.example.org",
                        )
                    },
                    required=("host",),
                ),
                says="true, false, or a mapping with the host that migrates",
                default=True,
                description="Run migrate when the plan is not empty. `{host: MINION_ID}`: only "
                "there; elsewhere a release whose migrations are missing is refused until that "
                "host has run. false: never, somebody else does.",
                example={"host": "web1.example.org"},
            ),
            "hooks": _hooks(),
            "exclude": _List(
                _Text(
                    "a glob of letters, digits and ._*?[]!/@+-",
                    r"(?!-)[A-Za-z0-9._*?\[\]!/@+-]+",
                    most=256,
                ),
                "a list of globs",
                unique=True,
                default=[],
                description="Files of the project that a release does not consist of, such as "
                "uploads and a database beside the code.",
                example=["media/*", "db.sqlite3"],
            ),
        },
        description="The Django project.",
    )


def _limits() -> _Table:
    return _Table(
        _Text(
            "a resource limit of systemd",
            choices=(
                "CPUQuota",
                "CPUWeight",
                "IOWeight",
                "LimitAS",
                "LimitCORE",
                "LimitFSIZE",
                "LimitNOFILE",
                "LimitNPROC",
                "MemoryHigh",
                "MemoryMax",
                "MemorySwapMax",
                "TasksMax",
            ),
        ),
        _Plain(
            _Number("a whole number", 0, 2**63 - 1),
            _Text("a size or a percentage", r"[0-9]{1,18}[KMGT%]?|infinity"),
            says="a whole number, a size like 512M, a percentage like 50% or infinity",
            as_text=True,
        ),
        "a mapping of systemd's resource limits",
        description="Resource limits of the units, by systemd's names.",
        example={"MemoryMax": "512M", "LimitNOFILE": 4096},
    )


def _uwsgi() -> _Mapping:
    scalar = _Plain(
        _Text(
            "text on one line, without blanks around it",
            _TRIMMED,
            most=4096,
            refuse=(_UNSAFE_OPTION,),
        ),
        _Number("a whole number", -(2**31), 2**63 - 1),
        _Switch(),
        says="text on one line, a whole number, true or false",
    )
    seconds = {"least": 1, "most": 3600}
    return _Mapping(
        {
            "package": _Text(
                "distro, or a requirement for pip without URL, like pyuwsgi==2.0.30.post1",
                _PIP_REQUIREMENT,
                most=256,
                nullable=True,
                default=_Derived("pyuwsgi==2.0.30.post1; null where binary is given"),
                description="Where uWSGI comes from: a requirement for pip (`pyuwsgi==...` is "
                "ready-made, `uwsgi==...` compiles), or `distro` for the distribution's "
                "uwsgi-core and uwsgi-plugin-python3.",
                example="uwsgi==2.0.31",
            ),
            "binary": _path(
                "A uwsgi executable that the operator keeps.",
                nullable=True,
                default=None,
                example="/home/deploy/.pyenv/versions/uwsgi-env/bin/uwsgi",
            ),
            "ini": _Text(
                _RELATIVE_SAYS,
                _RELATIVE,
                most=1024,
                nullable=True,
                default=None,
                description="The project's own uWSGI ini, inside the project. Its order and "
                "comments are kept; its http lines go and the socket's lines come in.",
                example=".config/uwsgi/mysite.ini",
            ),
            "processes": _Number(
                "a whole number from 1 to 1024",
                1,
                1024,
                default=2,
                description="Worker processes.",
                example=4,
            ),
            "threads": _Number(
                "a whole number from 1 to 1024",
                1,
                1024,
                default=1,
                description="Threads in each worker.",
                example=2,
            ),
            "options": _Table(
                _Text(
                    "a uWSGI option by its long name, of a-z, 0-9 and -",
                    r"[a-z0-9][a-z0-9-]*",
                    most=64,
                ),
                _Plain(
                    *scalar.options,
                    _List(scalar, "a list with at least one value", least=1),
                    says="text on one line, a whole number, true, false, or a list of them",
                ),
                "a mapping of uWSGI options",
                description="More uWSGI options, by their long names; a list repeats the option. "
                "What the formula sets itself, or would break what it promises, is refused.",
                example={"harakiri": 30, "lazy-apps": True},
            ),
            "params": _Table(
                _Text(
                    "a name of A-Z, 0-9 and _, beginning with a letter",
                    r"[A-Z][A-Z0-9_]*",
                    most=64,
                    refuse=(
                        (
                            r"UWSGI_.*|SCRIPT_NAME|DOCUMENT_ROOT|PATH_INFO|REQUEST_URI|QUERY_STRING"
                            r"|REQUEST_METHOD|CONTENT_(?:TYPE|LENGTH)|SERVER_PROTOCOL",
                            "uWSGI finds the application and the request by it",
                        ),
                        (r"REMOTE_ADDR", "see load_balancer, which says whom nginx trusts with it"),
                        (
                            r"HTTPS|HTTP_X_FORWARDED_PROTO|REQUEST_SCHEME",
                            "the formula sets it: see tls and load_balancer",
                        ),
                        (r"HTTP_HOST|HTTP_PROXY", "the formula sets it, so that no client can"),
                    ),
                ),
                _Text("text on one line, with nginx's variables", _ONE_LINE, most=1024),
                "a mapping of names and texts",
                default={},
                description="More parameters that nginx passes with each request "
                "(`uwsgi_param`). Django has them in `request.META`; what begins with `HTTP_` comes in the "
                "place of the client's own header. nginx's variables are replaced.",
                example={"HTTP_X_REQUEST_ID": "$request_id"},
            ),
            "sandbox": _Mapping(
                {
                    "allow": _List(
                        _Text(
                            "a name of what the sandbox closes",
                            choices=("devices", "jit", "netlink", "proc", "resources"),
                        ),
                        "a list of what the sandbox closes",
                        unique=True,
                        default=[],
                        description="What the site's processes may do beyond their sandbox: `proc` "
                        "(the host's figures in /proc, which psutil reads), `netlink` (interfaces and "
                        "routes), `jit` (memory that is written and executed: callbacks of cffi and "
                        "ctypes, PYTHON_JIT, numba), `resources` (priorities and processor "
                        "affinity), `devices` (graphics processors and other devices). See "
                        "isolation.md.",
                        example=["proc", "netlink"],
                    ),
                    "writable": _List(
                        _path("", refuse=(_SYSTEM_PLACES, _OPEN_PLACES)),
                        "a list of absolute paths of directories",
                        unique=True,
                        default=[],
                        description="More directories that the site's processes may write to, as "
                        "far as permissions let them: uploads on another disk, for example.",
                        example=["/mnt/efs/media"],
                    ),
                },
                description="Where the sandbox of the site's processes (isolation.md) is wider.",
            ),
            "log": _Mapping(
                {
                    "to": _Text(
                        "journal or file",
                        choices=("journal", "file"),
                        default="journal",
                        description="Where uWSGI and the project write: the journal, or "
                        "`/var/log/uwsgi/SITE/SITE.log`, the site's user's and readable for "
                        "the group adm.",
                        example="file",
                    ),
                    "keep": _Number(
                        "a whole number from 1 to 3650",
                        1,
                        3650,
                        default=14,
                        description="Rotated files that logrotate keeps, one a day.",
                        example=30,
                    ),
                },
                description="What becomes of what uWSGI and the project write.",
            ),
            "start_timeout": _Number(
                "seconds from 1 to 3600",
                **seconds,
                default=60,
                description="Seconds until a start that is not ready has failed.",
                example=120,
            ),
            "stop_timeout": _Number(
                "seconds from 1 to 3600",
                **seconds,
                default=60,
                description="Seconds that an old generation has to finish its requests.",
                example=120,
            ),
            "limits": _limits(),
        },
        description="The uWSGI instance.",
    )


def _companions() -> _Table:
    return _Table(
        _Text(
            "a name of 1 to 31 of a-z, 0-9, _ and -, beginning with a letter",
            r"[a-z][a-z0-9_-]{0,30}",
        ),
        _Mapping(
            {
                "command": _Plain(
                    _Text("text on one line", _TRIMMED, most=4096, private=True),
                    _List(
                        _Text("text on one line", _ONE_LINE, most=4096, private=True),
                        "a list with at least one word",
                        least=1,
                    ),
                    says="a command on one line, or a list of words",
                    description="What runs, in the release: a program of the virtual environment, "
                    "`manage.py` with a command, a path in the project or an absolute one. A text "
                    "is taken apart at its blanks, with a shell's quotes; no shell is involved. "
                    "Everybody on the host can read it: secrets belong in project:env.",
                    example="celery -A mysite worker --loglevel info",
                ),
                "schedule": _Text(
                    "a time as systemd.time(7) has it for OnCalendar=",
                    r"[A-Za-z0-9*][A-Za-z0-9*~:,./ _+-]*",
                    most=256,
                    nullable=True,
                    default=None,
                    description="When it runs, and then ends by itself; null: all the time.",
                    example="*-*-* 03:30:00",
                ),
                "settle": _Number(
                    "seconds from 1 to 3600",
                    1,
                    3600,
                    default=5,
                    description="Seconds that it has to run before it counts as up.",
                    example=15,
                ),
                "time_limit": _Number(
                    "seconds from 1 to 604800 (a week)",
                    1,
                    604800,
                    nullable=True,
                    default=None,
                    description="Seconds after which a scheduled one is stopped; null: it takes as "
                    "long as it takes.",
                    example=3600,
                ),
                "stop_signal": _Text(
                    "the name of a signal",
                    choices=("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2"),
                    default="SIGTERM",
                    description="What asks it to finish its work and end.",
                    example="SIGINT",
                ),
                "stop_timeout": _Number(
                    "seconds from 1 to 3600",
                    1,
                    3600,
                    default=60,
                    description="Seconds that it has for that; then it is killed.",
                    example=300,
                ),
                "limits": _limits(),
            },
            required=("command",),
        ),
        "a mapping of names and companions",
        description="What else runs for the site, of the same release, with the same user, "
        "environment and sandbox as its uWSGI: workers and timers, as django-SITE.NAME.service. "
        "Each has `command` and perhaps `schedule`, `settle`, `time_limit`, `stop_signal`, "
        "`stop_timeout` and `limits`; see companions.md.",
        example={"worker": {"command": "celery -A mysite worker"}},
    )


def _listens(default: Any, description: str, example: list) -> _List:
    return _List(
        _Plain(
            _Number("a port from 1 to 65535", 1, 65535),
            _Text(
                "a port, or address:port such as '127.0.0.1:8080' or '[::]:80', and perhaps "
                "default_server",
                rf"(?:(?:{_OCTET}(?:\.{_OCTET}){{3}}|\*|\[[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*\]):)?{_PORT}"
                r"(?: default_server)?",
                advice=(
                    (r"unix:.*", "nginx listens on ports; uWSGI's socket is socket:path"),
                    (r".*(?:ssl|http2).*", "where TLS is spoken is said by tls:listen"),
                ),
            ),
            says="a port from 1 to 65535, or a text such as '127.0.0.1:8080' or '[::]:80'",
        ),
        "a list with at least one port",
        least=1,
        unique=True,
        default=default,
        description=description,
        example=example,
    )


_SNIPPET_REFUSED = (
    r"[\s\S]*_by_lua_block[\s\S]*",
    "Lua in a block has braces of its own: put it into a file and name that",
)


def _snippet(where: str, example: str) -> _Text:
    return _Text(
        "lines of nginx's configuration",
        r"[^\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]+",
        most=65536,
        nullable=True,
        default=None,
        refuse=(_SNIPPET_REFUSED,),
        description=f"Raw lines of nginx's configuration, put {where} as they are: nginx is their "
        "judge. They have to be whole: no brace and no quote may be left open or be one too many.",
        example=example,
    )


_FORMAT_NAME = r"[A-Za-z][A-Za-z0-9_]*"


def _networks(description: str, example: list[str], least: int = 0) -> _List:
    return _List(
        _Text("an address or a network", r"[0-9A-Fa-f:.]+(?:/[0-9]{1,3})?"),
        "a list with at least one address or network"
        if least
        else "a list of addresses and networks",
        least=least,
        unique=True,
        # What has to have one has no default.
        **({} if least else {"default": []}),
        description=description,
        example=example,
    )


def _log_path(description: str, example: str, nullable: bool = True) -> _Text:
    # Where the distribution's logrotate finds it; and nginx opens it as root.
    return _Text(
        "a file in /var/log/nginx whose name ends in .log",
        r"/var/log/nginx/[A-Za-z0-9_][A-Za-z0-9._-]*\.log",
        most=255,
        nullable=nullable,
        description=f"{description} In nginx's own directory, where it is rotated.",
        example=f"/var/log/nginx/{example}",
    )


def _serving() -> dict[str, _Node]:
    """What nginx does for a site besides passing requests on."""
    # nginx compares what it has normalised: no request has . or .. there.
    path = r"/|(?:/(?!\.\.?(?:/|$))[A-Za-z0-9._~@+-]+)+/?"
    seconds = {"least": 1, "most": 86400, "nullable": True, "default": None}
    return {
        "redirects": _List(
            _Mapping(
                {
                    "from": _Text(
                        "a path, or a path that ends with /* for all below it",
                        rf"{path}|/(?:(?!\.\.?/)[A-Za-z0-9._~@+-]+/)+\*",
                        most=1024,
                        description="The path, exactly; with /* at its end, all that is below.",
                        example="/blog/*",
                    ),
                    "to": _Text(
                        "a path or a URL, perhaps with /* at its end",
                        rf"(?:https?://{_HOST}(?::{_PORT})?)?/(?!(?:[^?]*/)?\.\.?(?:/|$))"
                        r"[A-Za-z0-9._~/?&=%+@-]*\*?",
                        most=1024,
                        description="Where to; with /* at its end, followed by what /* stood for.",
                        example="/articles/*",
                    ),
                    "status": _Text(
                        "301, 302, 307 or 308, quoted",
                        choices=("301", "302", "307", "308"),
                        default="301",
                        description="The answer's status; 307 and 308 keep a POST a POST.",
                        example="308",
                    ),
                },
                required=("from", "to"),
            ),
            "a list of redirects",
            default=[],
            description="Paths that nginx answers with another; a query is kept.",
            example=[{"from": "/blog/*", "to": "/articles/*"}],
        ),
        "files": _List(
            _Mapping(
                {
                    "url": _Text(
                        "a path that begins and ends with /, or that of one file",
                        r"/(?:(?!\.\.?/)[A-Za-z0-9._~@-]+/)*(?!\.)[A-Za-z0-9._~@-]*",
                        most=256,
                        description="Where the files appear; without / at the end, one file.",
                        example="/media/",
                    ),
                    "path": _path(
                        "The directory, or the file, on the host. nginx follows no link there.",
                        example="/srv/mysite/shared/media",
                        refuse=(_SYSTEM_PLACES, _OPEN_PLACES),
                    ),
                    "missing": _Text(
                        "404, quoted, app, or the name of a file in the directory",
                        r"404|app|[A-Za-z0-9_][A-Za-z0-9._-]*",
                        most=256,
                        default="404",
                        description="What answers where there is no such file: `'404'`, `app` (the "
                        "application) or a file of the directory, such as index.html.",
                        example="app",
                    ),
                    "expires": _Text(
                        "a time such as 30d, or max, epoch or off",
                        r"-?[0-9]{1,9}[smhdwMy]?|max|epoch|'?off",
                        nullable=True,
                        default=None,
                        description="How long a browser may keep them.",
                        example="30d",
                    ),
                },
                required=("url", "path"),
            ),
            "a list of locations of files",
            default=[],
            description="Files that nginx serves itself, such as uploads. Hidden files, databases "
            "of SQLite, Python's files and backups are never among them.",
            example=[{"url": "/media/", "path": "/srv/mysite/shared/media"}],
        ),
        "headers": _Table(
            _Text(
                "a header's name",
                r"[A-Za-z][A-Za-z0-9-]*",
                most=64,
                refuse=(
                    (
                        r"(?i:Content-Length|Transfer-Encoding|Connection|Set-Cookie|Server|Date)",
                        "it is not for a configuration to set",
                    ),
                    (r"(?i:Content-Type)", "the file's own says it; see charset"),
                ),
            ),
            _Text(
                "one line of printable ASCII without a dollar sign",
                r"[\x20-\x23\x25-\x7e]+",
                most=4000,
                refuse=((r" .*|.* ", "it begins or ends with a blank"),),
            ),
            "a mapping of headers",
            default={"X-Content-Type-Options": "nosniff"},
            description="Headers of every answer, of static files too, in the place of the "
            "application's own of that name.",
            example={"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY"},
        ),
        "gzip": _Switch(
            nullable=True,
            default=None,
            description="true compresses texts, false nothing, null is as nginx.conf says. With "
            "TLS, a page that shows both a secret and what the visitor sent is then open to BREACH.",
            example=True,
        ),
        "timeouts": _Mapping(
            {
                "body": _Number(
                    "seconds from 1 to 86400",
                    description="Seconds between two pieces of a request's body.",
                    example=30,
                    **seconds,  # type: ignore[arg-type]
                ),
                "send": _Number(
                    "seconds from 1 to 86400",
                    description="Seconds between two pieces of an answer that a client takes.",
                    example=30,
                    **seconds,  # type: ignore[arg-type]
                ),
                "app": _Number(
                    "seconds from 1 to 86400",
                    description="Seconds that the application may be silent.",
                    example=120,
                    **seconds,  # type: ignore[arg-type]
                ),
            },
            description="How long nginx waits; null is nginx's own 60 s.",
        ),
        "upload_buffering": _Switch(
            default=True,
            description="false passes an upload on while it arrives: a slow client then holds a "
            "worker for as long.",
        ),
        "maintenance": _Mapping(
            {
                "page": _path(
                    "A page of HTML on the host, shown instead of nginx's own 503.",
                    nullable=True,
                    default=None,
                    example="/var/www/maintenance.html",
                    refuse=(_SYSTEM_PLACES, _OPEN_PLACES),
                ),
                "retry_after": _Number(
                    "seconds from 1 to 86400",
                    1,
                    86400,
                    default=600,
                    description="After how many seconds a client may ask again (Retry-After).",
                    example=3600,
                ),
                "except": _networks(
                    "Who is let through all the same, such as those who are at work.",
                    ["203.0.113.7", "2001:db8::/32"],
                ),
            },
            nullable=True,
            default=None,
            description="Answer everything with 503 while it is there (`{}` does), but for "
            "nginx:health and ACME. null: the site is open.",
            example={"retry_after": 3600, "except": ["203.0.113.7"]},
        ),
        "basic_auth": _Mapping(
            {
                "realm": _Text(
                    "printable ASCII without a dollar sign and quotes",
                    r"[\x20\x21\x23\x25-\x26\x28-\x5b\x5d-\x7e]+",
                    most=200,
                    default="Restricted",
                    description="What a browser shows when it asks.",
                    example="Staging",
                ),
                "users": _Table(
                    _Text("a user's name", r"[A-Za-z0-9][A-Za-z0-9._@+-]*", most=64),
                    _Text(
                        "the hash of a password by crypt(3), such as `openssl passwd -6` makes, or "
                        "by `htpasswd` ($apr1$)",
                        r"\$(?:apr1|5|6|y|2[aby])\$[A-Za-z0-9./$=]{10,200}",
                        secret=True,
                        advice=((r"[^$].*", "a password itself does not go into the pillar"),),
                    ),
                    "a mapping with at least one user",
                    least=1,
                    default=_REQUIRED,
                    description="The hashes of the passwords, by user. Only nginx and root read the "
                    "file, and no diff shows it.",
                    example={"ann": "$6$saltsalt$" + "x" * 86},
                ),
                "except": _networks("Who is not asked.", ["10.0.0.0/8"]),
            },
            required=("users",),
            nullable=True,
            default=None,
            description="nginx asks for a name and a password first; ACME and nginx:health are "
            "not asked.",
            example={"users": {"ann": "$6$saltsalt$" + "x" * 86}},
        ),
        "rate_limits": _List(
            _Mapping(
                {
                    "path": _Text(
                        "a path; with / at its end all that is below, too",
                        path,
                        most=256,
                        description="What is limited; `/` is the application as a whole.",
                        example="/accounts/login/",
                    ),
                    "rate": _Text(
                        "a number per second (5r/s) or minute (10r/m)",
                        r"[1-9][0-9]{0,5}r/[sm]",
                        description="Requests of one client's address.",
                        example="10r/m",
                    ),
                    "burst": _Number(
                        "a whole number from 0 to 100000",
                        0,
                        100000,
                        default=0,
                        description="How many may come at once above that.",
                        example=5,
                    ),
                },
                required=("path", "rate"),
            ),
            "a list of limits",
            default=[],
            description="How often one address may ask the application; more is answered with 429. "
            "Of several paths the longest counts.",
            example=[{"path": "/accounts/login/", "rate": "10r/m", "burst": 5}],
        ),
        "access_log": _Mapping(
            {
                "path": _log_path("The file; null: none is written.", "mysite.access.log"),
                "format": _Text(
                    "combined or the name of one of nginx:log_formats",
                    _FORMAT_NAME,
                    most=64,
                    default="combined",
                    description="Its format.",
                    example="json",
                ),
            },
            required=("path",),
            nullable=True,
            default=None,
            description="The log of requests; null: where nginx.conf says.",
            example={"path": "/var/log/nginx/mysite.access.log", "format": "json"},
        ),
        "error_log": _Mapping(
            {
                "path": _log_path("The file.", "mysite.error.log", nullable=False),
                "level": _Text(
                    "a level of nginx's",
                    choices=("info", "notice", "warn", "error", "crit", "alert", "emerg"),
                    default="error",
                    description="From which level on.",
                    example="warn",
                ),
            },
            required=("path",),
            nullable=True,
            default=None,
            description="nginx's log of errors of the site; null: where nginx.conf says.",
            example={"path": "/var/log/nginx/mysite.error.log"},
        ),
        "load_balancer": _Mapping(
            {
                "addresses": _networks(
                    "Whom nginx believes what the request's headers say.",
                    ["10.0.0.0/16"],
                    least=1,
                ),
                "header": _Text(
                    "a header's name",
                    r"[A-Za-z][A-Za-z0-9-]*",
                    most=64,
                    default="X-Forwarded-For",
                    description="The header with the client's address.",
                    example="X-Real-IP",
                ),
            },
            required=("addresses",),
            nullable=True,
            default=None,
            description="A load balancer in front: the client's address, and by X-Forwarded-Proto "
            "whether it came by HTTPS, are what it says. From anybody else neither is believed.",
            example={"addresses": ["10.0.0.0/16"]},
        ),
        "snippet": _snippet(
            "at the end of the site's server block", "location = /x { return 204; }\n"
        ),
    }


def _check_serving(name: str, site: dict, nginx: dict, errors: list) -> None:
    """What nginx does for a site: nothing twice, nothing that leaks, no text left open."""
    path = ("sites", name)
    places: dict[str, str] = {}
    # An entry that lacks what it needs has been reported.
    redirects = [one for one in enumerate(site["redirects"]) if _UNSET not in one[1].values()]
    files = [one for one in enumerate(site["files"]) if _UNSET not in one[1].values()]
    if nginx["health"]:
        places[nginx["health"]["path"]] = "nginx:health:path"
    if site["tls"]["acme"]:
        places["/.well-known/acme-challenge/"] = "tls:acme"
    if site["project"]["static"]["collect"]:
        places[site["project"]["static"]["url"]] = "project:static:url"
    limits = [one for one in enumerate(site["rate_limits"]) if _UNSET not in one[1].values()]
    # The one of / is no location of its own.
    limited = [one for one in limits if one[1]["path"] != "/"]
    for key, word, entries in (
        ("redirects", "from", redirects),
        ("files", "url", files),
        ("rate_limits", "path", limited),
    ):
        for number, entry in entries:
            url = entry[word].removesuffix("*")
            other = places.setdefault(url, f"{key}:{number}:{word}")
            if other != f"{key}:{number}:{word}":
                errors.append(
                    _meaning(
                        (*path, key, number, word), f"{url!r}, which is {other} too", "each once"
                    )
                )
    for number, entry in redirects:
        if entry["to"] == entry["from"]:
            errors.append(
                _meaning(
                    (*path, "redirects", number, "to"),
                    f"{entry['to']!r}, which is from, too",
                    "another path, or a URL: this one leads to itself without end",
                )
            )
        if entry["to"].endswith("*") and not entry["from"].endswith("*"):
            errors.append(
                _meaning(
                    (*path, "redirects", number, "to"),
                    f"{entry['to']!r}, while from has no /*",
                    "a * there only where from ends with /*",
                )
            )
    project = site["project"]
    package = [(project[key] or "").split(".")[0].split(":")[0] for key in ("wsgi", "settings")]
    closed = [project["path"], *(f"{project['path']}/{one}" for one in package if one)]
    closed += [f"{project['path']}/{one}" for one in ("current", "releases", ".git", "shared/data")]
    closed += [project["venv"]] if project["venv"] else []
    for number, entry in files:
        inside = [one for one in closed if entry["path"] == one or entry["path"] in _parents(one)]
        if inside or any(one in closed[1:] for one in _parents(entry["path"])):
            errors.append(
                _meaning(
                    (*path, "files", number, "path"),
                    f"{entry['path']!r}, with the project's code or data",
                    "a directory with nothing but files for everybody",
                )
            )
        if not entry["url"].endswith("/") and entry["missing"] != "404":
            errors.append(
                _meaning(
                    (*path, "files", number, "missing"),
                    f"{entry['missing']!r} of one file",
                    "'404', or a url that ends with /",
                )
            )
    for key, word in (
        ("load_balancer", "addresses"),
        ("maintenance", "except"),
        ("basic_auth", "except"),
    ):
        addresses = (site[key] or {word: []})[word]
        for number, address in enumerate([] if addresses is _UNSET else addresses):
            try:
                ipaddress.ip_network(address)
            except ValueError as error:
                errors.append(
                    _meaning(
                        (*path, key, word, number),
                        f"{address!r}: {error}",
                        "an address, or a network without bits behind its mask",
                    )
                )
    _check_log(path, site, nginx, errors)
    _check_snippet((*path, "snippet"), site["snippet"], errors)
    if site["snippet"] and "uwsgi_param" in __salt__["nginx_tree.outermost"](site["snippet"]):
        errors.append(
            _meaning(
                (*path, "snippet"),
                "a uwsgi_param outside of a location, which never reaches the application: its "
                "location has parameters of its own",
                "the parameter in uwsgi:params",
            )
        )


def _check_log(path: tuple, site: dict, nginx: dict, errors: list) -> None:
    """A format that there is."""
    name = (site["access_log"] or {"format": "combined"})["format"]
    if name is not _UNSET and name != "combined" and name not in nginx["log_formats"]:
        errors.append(
            _meaning(
                (*path, "access_log", "format"),
                f"{name!r}, which is none of nginx:log_formats",
                f"one of {', '.join(['combined', *nginx['log_formats']])}",
            )
        )


def _check_snippet(path: tuple, text: str | None, errors: list) -> None:
    if text and (flaw := __salt__["nginx_tree.flaw"](text)):
        errors.append(_meaning(path, f"a text that is not whole: {flaw}", "whole directives"))


def _tls() -> _Mapping:
    return _Mapping(
        {
            "certificate": _Text(
                "the absolute path of a PEM file on the host, or its text",
                rf"{_PATH}|{_PEM_CHAIN}",
                most=65536,
                nullable=True,
                default=None,
                # A key in its place is wrong, and not for the report to repeat.
                private=True,
                advice=(
                    (r"[\s\S]*PRIVATE KEY[\s\S]*", "the private key goes to tls:key"),
                    (r"[\s\S]*-----BEGIN[\s\S]*", "CERTIFICATE blocks alone, without other text"),
                ),
                description="The certificate with its chain, the site's own first: a PEM file that "
                "somebody keeps on the host, or the text itself. With it goes `tls:key`.",
                example="/etc/ssl/private/www.example.org.pem",
            ),
            "key": _Text(
                "the absolute path of a PEM file on the host, or its text, not encrypted",
                rf"{_PATH}|{_PEM_KEY}",
                most=65536,
                nullable=True,
                default=None,
                secret=True,
                advice=(
                    (
                        r"[\s\S]*ENCRYPTED[\s\S]*",
                        "nobody is there to type a passphrase: decrypt it",
                    ),
                    (
                        r"[\s\S]*-----BEGIN[\s\S]*",
                        "one PRIVATE KEY block alone, without other text",
                    ),
                ),
                description="The certificate's private key, as path or text like `tls:certificate`. "
                "The text is kept in a file that root alone reads, and shown nowhere.",
                example="/etc/ssl/private/www.example.org.pem",
            ),
            "acme": _Switch(
                default=False,
                description="true: the certificate is asked for, and renewed, by ACME (Let's "
                "Encrypt, for example) with certbot: see `acme`. Until the first one arrives nginx "
                "has a self-signed one, and plain HTTP is not redirected.",
            ),
            "listen": _listens(
                _Derived(
                    "as listen, with 443 in the place of 80; [443] where nothing listens on 80"
                ),
                "Where nginx speaks TLS for the site, once it has a certificate.",
                [443, "[::]:443"],
            ),
            "redirect": _Switch(
                default=True,
                description="What is asked for by plain HTTP is redirected to HTTPS.",
            ),
            "hsts": _Number(
                "a number of seconds; 0 is none",
                0,
                2**31 - 1,
                default=63072000,
                description="How long browsers are to ask for HTTPS alone "
                "(Strict-Transport-Security), where `tls:redirect` is on. Two years, as Mozilla "
                "recommends: a site that may have to go back to plain HTTP says 0.",
                example=300,
            ),
        },
        description="TLS, at the intermediate level of Mozilla's recommendations. A site has it "
        "when it has a certificate and a key, or `acme: true`.",
    )


def _acme() -> _Mapping:
    return _Mapping(
        {
            "email": _Text(
                "an e-mail address",
                r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+",
                most=254,
                nullable=True,
                default=None,
                refuse=((r"-.*", "certbot would take it for an option"),),
                description="Where the certificate authority writes to; null: it has no address.",
                example="ops@example.org",
            ),
            "terms_agreed": _Switch(
                default=False,
                description="true: the authority's terms of service have been read and agreed to. "
                "Nothing is asked for without it.",
            ),
            "directory": _Text(
                "the https URL of an ACME directory",
                r"https://[A-Za-z0-9._~:/\[\]-]+",
                most=1024,
                default="https://acme-v02.api.letsencrypt.org/directory",
                description="The authority. Another one than that of the certificate on the host: "
                "a new certificate is asked for.",
                example="https://acme-staging-v02.api.letsencrypt.org/directory",
            ),
            "ca": _path(
                "Certificates (PEM) that the ACME server's own is checked with, where the system's "
                "do not do; certbot's timer, too, then trusts these alone.",
                nullable=True,
                default=None,
                example="/etc/ssl/certs/company-root.pem",
            ),
        },
        description="The account for the sites with `tls:acme: true`.",
    )


def _ingress() -> _Mapping:
    return _Mapping(
        {
            "minion": _Text(
                "a minion's ID",
                r"[A-Za-z0-9][A-Za-z0-9._@-]*",
                most=253,
                description="The one minion that keeps the group; all others leave it alone.",
                example="web1",
            ),
            "group": _Text(
                "a security group's ID, like sg-0123456789abcdef0",
                r"sg-[0-9a-f]{8,17}",
                description="The security group.",
                example="sg-0123456789abcdef0",
            ),
            "region": _Text(
                "a region's name",
                r"[a-z]{2}(?:-[a-z]+)+-[0-9]{1,2}",
                nullable=True,
                default=None,
                description="Where the group is; null is the instance's own region.",
                example="eu-central-1",
                advice=((r".*[0-9][a-z]", "that is an availability zone; leave its letter out"),),
            ),
            "ports": _List(
                _Number("a port from 1 to 65535", 1, 65535),
                "a list with at least one port",
                least=1,
                unique=True,
                default=[80, 443],
                description="The TCP ports that are let in.",
                example=[443],
            ),
            "ranges": _List(
                _Text("an address or a network", r"[0-9A-Fa-f:.]+(?:/[0-9]{1,3})?"),
                "a list with at least one address or network",
                least=1,
                unique=True,
                default=["0.0.0.0/0", "::/0"],
                description="From where, IPv4 and IPv6; by default from everywhere.",
                example=["192.0.2.0/24", "2001:db8::/32"],
            ),
            "description": _Text(
                "1 to 255 letters, digits, blanks and ._-:/()#,@[]+=&;{}!$*",
                r"[A-Za-z0-9._:/()#,@\[\]+=&;{}!$*-](?:[A-Za-z0-9 ._:/()#,@\[\]+=&;{}!$*-]*"
                r"[A-Za-z0-9._:/()#,@\[\]+=&;{}!$*-])?",
                most=255,
                default="Django sites (nginx_uwsgi_django)",
                description="What each rule says of itself in AWS's console.",
                example="public web",
            ),
            "endpoint": _Text(
                "an http or https URL with a host and perhaps a port, without a path",
                r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[1-9][0-9]{0,4})?",
                most=256,
                nullable=True,
                default=None,
                description="Where the API of EC2 is asked; null is the region's own.",
                example="https://vpce-0123456789abcdef0.ec2.eu-central-1.vpce.amazonaws.com",
            ),
        },
        required=("minion", "group"),
        nullable=True,
        default=None,
        description="Ingress rules of a security group, see docs/ec2.md; null: nobody asks AWS.",
        example={"minion": "web1", "group": "sg-0123456789abcdef0"},
    )


_INGRESS = _ingress()


def _check_ingress(ingress: dict | None, path: tuple, errors: list) -> None:
    """What no pattern sees of ranges, and one range that is written twice."""
    ranges = (ingress or {"ranges": []})["ranges"]
    seen: dict[Any, int] = {}
    for number, text in enumerate([] if ranges is _UNSET else ranges):
        here = (*path, "ranges", number)
        try:
            network = ipaddress.ip_network(text)
        except ValueError as error:
            errors.append(
                _meaning(
                    here,
                    f"{text!r}: {error}",
                    "an address, or a network without bits behind its mask",
                )
            )
            continue
        if seen.setdefault(network, number) != number:
            errors.append(_meaning(here, repr(text), f"no range that item {seen[network]} is too"))


def _site_keys() -> dict[str, _Node]:
    return {
        "server_names": _List(
            _Text(
                "a name like www.example.org, *.example.org, www.example.*, an IPv4 address, _ or "
                "ec2:public-hostname",
                rf"_|(?:\*\.|\.)?{_HOST}|{_HOST}\.\*|ec2:(?:public|local)-(?:hostname|ipv4)",
                most=253,
                advice=(
                    (r"ec2:.*", "an instance has public-, local-hostname, public- and local-ipv4"),
                    (r"https?://.*", "a name alone, without http:// and without a path"),
                    (r"[^\[\]]*:[0-9]*", "a name alone; the port goes to listen"),
                    (r"~.*", "regular expressions are not supported; use a wildcard"),
                    (r".*[^\x00-\x7f].*", "write an international name in its xn-- form"),
                    (r".*/.*", "a name alone, without a path"),
                ),
            ),
            "a list with at least one name",
            least=1,
            unique=True,
            description="The names that the site answers to. `ec2:public-hostname`, "
            "`ec2:public-ipv4`, `ec2:local-hostname` and `ec2:local-ipv4` are the instance's own; "
            "one that it does not have, or any of them off EC2, adds no name.",
            example=["www.example.org", "*.example.org"],
        ),
        "redirect_from": _List(
            _Text(
                "a name like example.org, *.example.org or www.example.*",
                rf"(?:\*\.|\.)?{_HOST}|{_HOST}\.\*",
                most=253,
                advice=(
                    (r"https?://.*", "a name alone, without http:// and without a path"),
                    (r".*/.*", "a path is redirected by redirects"),
                ),
            ),
            "a list of names",
            unique=True,
            default=[],
            description="Names whose requests are redirected to the same path under the first of "
            "server_names. A certificate by ACME is for them too.",
            example=["example.org"],
        ),
        "listen": _listens(
            [80],
            "Where nginx listens for the site: ports, or quoted texts with address and port. "
            "`default_server` after a port makes the site answer for every other name too.",
            [80, "[::]:80"],
        ),
        "charset": _Text(
            "a charset's name, or 'off'",
            r"[A-Za-z0-9][A-Za-z0-9._-]*",
            most=40,
            default="utf-8",
            description="The charset in the Content-Type of texts.",
            example="utf-8",
        ),
        "client_max_body_size": _Plain(
            _Text("a size", r"[0-9]{1,15}|[0-9]{1,6}[kKmMgG]"),
            _Number("a number of bytes", 0, 999_999_999_999_999),
            says="a size in bytes, or with k, m or g; 0 is no limit",
            as_text=True,
            default="128M",
            description="The largest request body that nginx accepts.",
            example="10m",
        ),
        **_serving(),
        "project": _project(),
        "uwsgi": _uwsgi(),
        "companions": _companions(),
        "socket": _Mapping(
            {
                "path": _Text(
                    f"{_PATH_SAYS}; 107 bytes at most",
                    _PATH,
                    most=107,  # sun_path of unix(7), less its closing NUL
                    default=_Derived("/run/uwsgi/SITE.sock"),
                    description="The socket between nginx and uWSGI; systemd holds it. In /tmp, "
                    "where anybody may put a socket of that name first, it works and every run "
                    "calls it insecure.",
                    example="/run/uwsgi/mysite.sock",
                    refuse=(_SYSTEM_SOCKET_PLACES,),
                ),
                "owner": _Text(
                    _ACCOUNT_SAYS,
                    _ACCOUNT,
                    most=32,
                    default="root",
                    description="The socket's owner. While nginx goes over to another nginx:user, "
                    "its old user takes the owner's place.",
                    example="deploy",
                ),
                "group": _Text(
                    _ACCOUNT_SAYS,
                    _ACCOUNT,
                    most=32,
                    default=_Derived("the primary group of nginx:user"),
                    description="The socket's group: one that nginx's user is in, unless the "
                    "owner or the mode lets nginx connect.",
                    example="deploy",
                    refuse=(
                        ("users|nogroup", "anybody may be in it, and who can connect runs code"),
                    ),
                ),
                "mode": _Text(
                    "a quoted octal mode, like '0660'",
                    r"0?[0-7]{3}",
                    default="0660",
                    description="The socket's mode, quoted. Who can write to a uWSGI socket runs "
                    "code as the site's user: with '0666' that is everybody on the host, and every "
                    "run calls it insecure.",
                    example="0660",
                    mode=True,
                    advice=(
                        (r"[0-7]{5,}|[1-7][0-7]{3}", "no special bits: three digits after the 0"),
                    ),
                ),
                "backlog": _Number(
                    "a whole number from 1 to 65535",
                    1,
                    65535,
                    default=4096,
                    description="Connections that may wait for a free worker.",
                    example=1024,
                ),
            },
            description="The socket between nginx and uWSGI.",
        ),
        "health": _Mapping(
            {
                "path": _Text(
                    "a path that begins with /, perhaps with a query",
                    r"/[A-Za-z0-9._~/?&=+,:@-]*",
                    most=1024,
                    default="/",
                    description="What is asked for to see whether the site works.",
                    example="/health/",
                ),
                "status": _List(
                    _Number("a status from 100 to 599", 100, 599),
                    "a list with at least one status",
                    least=1,
                    unique=True,
                    default=[200, 301, 302],
                    description="The answers that mean yes.",
                    example=[200],
                ),
                "host": _Text(
                    "a host name",
                    _HOST,
                    most=253,
                    default=_Derived(
                        "the first of server_names, where '*.example.org' becomes "
                        "health.example.org"
                    ),
                    description="The Host header of the question; Django's ALLOWED_HOSTS has to "
                    "allow it.",
                    example="www.example.org",
                ),
                "timeout": _Number(
                    "seconds from 1 to 3600",
                    1,
                    3600,
                    default=30,
                    description="Seconds until no answer is a no.",
                    example=10,
                ),
            },
            description="How a new generation proves that it works, before any request reaches it.",
        ),
        "tls": _tls(),
    }


_DEFAULTS_OF_SITES = _Mapping(
    _site_keys(),
    description="Values for every site that does not say otherwise: mappings are merged, anything "
    "else is replaced by the site's own.",
)
_SITE = _Mapping(
    {
        "absent": _Switch(
            default=False,
            description="true removes the site from the host; nothing else is needed then.",
        ),
        **_DEFAULTS_OF_SITES.keys,
    },
    description="One site.",
)
#: What a site that is not absent has to say, itself or through site_defaults.
_REQUIRED_OF_SITE = (("server_names",), ("project", "wsgi"), ("project", "settings"))

_SITE_NAME = _Text(
    "a site's name: 1 to 31 of a-z, 0-9, _ and -, beginning with a letter",
    r"[a-z][a-z0-9_-]{0,30}",
    refuse=(_RESERVED_ACCOUNT, _RESERVED_GROUP, _RESERVED_SITE),
)

_PILLAR = _Mapping(
    {
        "lookup": _lookup(),
        "purge": _Switch(
            default=False,
            description="true also removes sites that the formula made and the pillar no longer "
            "names, but not their data; otherwise such a site stays as it is and is reported, and "
            "a site goes only by `absent: true`.",
        ),
        "clean": _Mapping(
            {
                "data": _Switch(
                    default=False,
                    description="true: removing a site by `absent`, or all by "
                    "`nginx_uwsgi_django.clean`, removes its releases, database and uploads too.",
                ),
            },
            description="What a removal removes.",
        ),
        "schedule": _Mapping(
            {
                "minutes": _Number(
                    "a whole number of minutes from 5 to 10080 (a week)",
                    5,
                    10080,
                    nullable=True,
                    default=None,
                    description="A masterless host applies the formula to itself by a timer, this "
                    "long after it was set and after each run; null: it does not.",
                    example=60,
                ),
                "splay": _Number(
                    "a whole number of minutes from 0 to 1440",
                    0,
                    1440,
                    default=10,
                    description="Each run is put off by a random time up to this many minutes, so "
                    "that hosts do not all run at once.",
                    example=30,
                ),
            },
            description="Runs that nobody starts.",
        ),
        "nginx": _Mapping(
            {
                "repo": _Text(
                    f"{', '.join(('auto', *_SOURCES))} or distro",
                    choices=("auto", *_SOURCES, "distro"),
                    default=_Derived("auto on Ubuntu, distro elsewhere"),
                    description="Where nginx comes from: the PPA of `ppa` (Ubuntu only), nginx.org, "
                    "or the distribution. auto stays with the source that nginx is from; on a host "
                    "without nginx it takes the PPA where that has the release, else the "
                    "distribution.",
                    example="nginx.org",
                ),
                "ppa": _Text(
                    "OWNER/NAME, a PPA of Launchpad",
                    r"[a-z0-9][a-z0-9.+-]*/[a-z0-9][a-z0-9.+-]*",
                    most=256,
                    default=_STABLE,
                    description="The PPA of `repo: ppa`. Any but nginx/stable needs its keys in "
                    "`lookup:repos:ppa:fingerprints`; `deb822_source.ppa OWNER/NAME` prints them.",
                    example="ondrej/nginx",
                ),
                "user": _Text(
                    _ACCOUNT_SAYS,
                    _ACCOUNT,
                    most=32,
                    default="deploy",
                    description="The user of nginx's workers; created when missing.",
                    example="www-data",
                    refuse=(("root", "nginx's workers would be root"),),
                ),
                "allow_loss": _List(
                    _Text(
                        "listen ADDRESS:PORT or name NAME on ADDRESS:PORT, as the refusal says it",
                        r"(?:listen|name \S+ on) \S+",
                        most=400,
                    ),
                    "a list of what may go",
                    unique=True,
                    default=[],
                    description="Addresses and names that nginx answers now and may stop answering. "
                    "A run that would end any other changes nothing of nginx, and prints the line to write here.",
                    example=["listen *:443", "name old.example.org on *:80"],
                ),
                "catch_all": _Switch(
                    nullable=True,
                    default=None,
                    description="Close the connection of a request whose Host is no site's name; "
                    "null does so where nginx has more sites of the formula's than one. Not on an address where a site is the default_server, or has the name _.",
                    example=True,
                ),
                "health": _Mapping(
                    {
                        "path": _Text(
                            "a path that begins with /",
                            r"(?:/(?!\.\.?(?:/|$))[A-Za-z0-9._~@+-]+)+/?",
                            most=256,
                            description="The path.",
                            example="/-/health",
                        ),
                        "site": _Text(
                            "the name of a site",
                            r"[a-z][a-z0-9_-]{0,30}",
                            default=_Derived("the first of the sites"),
                            description="The site that is asked where the Host is no site's.",
                            example="mysite",
                        ),
                        "drain": _Number(
                            "seconds from 0 to 900",
                            0,
                            900,
                            default=0,
                            description="How long a shutdown of the host waits, with 503 as the "
                            "answer and every other request served: as long as the load balancer "
                            "needs to notice. 0: not at all.",
                            example=30,
                        ),
                    },
                    required=("path",),
                    nullable=True,
                    default=None,
                    description="A path for load balancers, answered for any Host: the site's "
                    "health:path is asked with its health:host. While "
                    "/run/nginx_uwsgi_django/drain is there, the answer is 503.",
                    example={"path": "/-/health"},
                ),
                "timeouts": _Mapping(
                    {
                        "header": _Number(
                            "seconds from 1 to 86400",
                            1,
                            86400,
                            nullable=True,
                            default=None,
                            description="Seconds that a client has for a request's head.",
                            example=15,
                        ),
                        "keepalive": _Number(
                            "seconds from 0 to 86400",
                            0,
                            86400,
                            nullable=True,
                            default=None,
                            description="Seconds that an idle connection is kept; 0: none is.",
                            example=30,
                        ),
                    },
                    description="How long nginx waits for a request. It knows the site only after "
                    "a request's head: what counts is the default server's word, in force where "
                    "that is one of the formula's. null is as nginx.conf says.",
                ),
                "log_formats": _Table(
                    _Text(
                        "a name of A-Z, a-z, 0-9 and _",
                        _FORMAT_NAME,
                        most=64,
                        refuse=((r"combined", "it is nginx's own"),),
                    ),
                    _Mapping(
                        {
                            "format": _Text(
                                "one line of text with nginx's variables",
                                r"[^\x00-\x1f\x7f\ud800-\udfff]+",
                                most=4000,
                                description="The line.",
                                example='$remote_addr "$request" $status',
                            ),
                            "escape": _Text(
                                "default, json or none",
                                choices=("default", "json", "none"),
                                default="default",
                                description="How the variables' values are written.",
                                example="json",
                            ),
                        },
                        required=("format",),
                    ),
                    "a mapping of formats",
                    default={},
                    description="Formats for the sites' access_log, by name.",
                    example={
                        "json": {
                            "escape": "json",
                            "format": '{"time": "$time_iso8601", "status": $status}',
                        }
                    },
                ),
                "snippet": _snippet(
                    "at the level of http", "map $http_x_kind $kind { default 0; }\n"
                ),
                "socket": _Switch(
                    default=True,
                    description="systemd holds nginx's listening sockets, so that a restart or an "
                    "upgrade of its package refuses no connection. Addresses with `reuseport` are "
                    "not held; one that nginx has bound by itself is taken over when nginx is "
                    "started next. While nginx is stopped, clients wait instead of being refused, "
                    "and nobody else can have the port: false, where that is not wanted.",
                ),
            },
            description="nginx as a whole.",
        ),
        "ec2": _Mapping(
            {
                "metadata": _Text(
                    "an http URL with a host and perhaps a port, without a path",
                    r"http://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[1-9][0-9]{0,4})?",
                    most=256,
                    nullable=True,
                    default=None,
                    description="Where an instance asks what it is, always by IMDSv2; null is "
                    "EC2's own IPv4 address, asked only where the firmware says EC2.",
                    example="http://[fd00:ec2::254]",
                ),
                "ingress": _INGRESS,
            },
            description="The host as an EC2 instance.",
        ),
        "rollout": _Mapping(
            {
                "window": _Number(
                    "seconds from 0 to 3600",
                    0,
                    3600,
                    default=10,
                    description="How long a host is watched before it is changed and after; 0 "
                    "leaves the comparison out.",
                    example=60,
                ),
                "errors": _Number(
                    "a percentage from 0 to 100",
                    0,
                    100,
                    default=1,
                    description="How many more of 100 requests may fail after than before.",
                    example=0,
                ),
                "slower": _Number(
                    "a percentage from 0 to 10000",
                    0,
                    10000,
                    default=100,
                    description="By how many per cent a request may take longer after than before; "
                    "a quarter of a second always may be.",
                    example=50,
                ),
                "memory": _Number(
                    "a percentage from 0 to 10000",
                    0,
                    10000,
                    default=100,
                    description="By how many per cent the memory of a site's uWSGI may be larger after "
                    "than before; 128 MiB always may be.",
                    example=50,
                ),
            },
            description="What `salt-run rollout.apply` demands of a host that it has changed.",
        ),
        "acme": _acme(),
        "site_defaults": _DEFAULTS_OF_SITES,
        "sites": _Table(
            _SITE_NAME,
            _SITE,
            "a mapping of sites by name, with at least one",
            least=1,
            default=_REQUIRED,
            description="The sites, by name. The name becomes that of the unit (uwsgi-NAME), the "
            "nginx file, the user and the paths, unless they say otherwise.",
        ),
    },
    required=("sites",),
    description="Django sites served by nginx through uWSGI.",
)


# --- From the pillar to the settings ----------------------------------------------------------


def _laid_over(base: Any, over: Any) -> Any:
    """``over`` merged over ``base``: mappings key by key, anything else replaced."""
    if isinstance(base, dict) and isinstance(over, dict):
        merged = dict(base)
        for key, value in over.items():
            merged[key] = _laid_over(base[key], value) if key in base else value
        return merged
    return over


def _platform(grains: dict) -> dict:
    """What the platform says, by its grains, in the pillar's own shape."""
    values: dict = {}
    for each in _GRAINS:
        for grain, wanted, more in _PLATFORMS:
            if grain == each and grains.get(grain) == wanted:
                values = _laid_over(values, more)
    return values


def _primary_group(user: str) -> str:
    """
    The primary group of a user. One that does not exist yet will get a group of its own name
    (system_account makes it so).
    """
    try:
        return grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name
    except KeyError:
        return user


def groups_of(user: str, group: str = "") -> list[str]:
    """
    The groups that a process has which runs as a user, as initgroups(3) gives them.

    user
        a name; one that does not exist yet will have a group of its own name
    group
        the name of the process's group; by default the user's primary group

    Returns their names, sorted.

    CLI Example:

    .. code-block:: bash

        salt '*' site_pillar.groups_of www-data
    """
    first = group or _primary_group(user)
    try:
        numbers = os.getgrouplist(user, grp.getgrnam(first).gr_gid)
    except KeyError:
        return [first]
    found = {first}
    for number in numbers:
        with contextlib.suppress(KeyError):
            found.add(grp.getgrgid(number).gr_name)
    return sorted(found)


def may_connect(user: str, groups: list[str], socket: dict[str, Any]) -> bool:
    """
    Whether a process may connect to a socket, by the socket's owner, group and mode (unix(7)).

    user, groups
        the names of the process's user and of its groups
    socket
        ``owner``, ``group`` and ``mode`` (a quoted octal string)

    Returns True or False.

    CLI Example:

    .. code-block:: bash

        salt '*' site_pillar.may_connect www-data '[www-data]' '{owner: root, group: www-data, mode: "0660"}'
    """
    mode = int(socket["mode"], 8)
    # As the kernel does: only the first class that the process is in counts.
    if user == socket["owner"]:
        return user == "root" or bool(mode & 0o200)
    return user == "root" or bool(mode & (0o020 if socket["group"] in groups else 0o002))


def _concrete(name: str) -> str:
    """A host name that a server name answers to."""
    if name == "_":
        return "localhost"
    if name.startswith("*."):
        return f"health{name[1:]}"
    if name.endswith(".*"):
        return f"{name[:-2]}.localhost"
    return name.lstrip(".")


def _tls_source(tls: dict) -> str | None:
    """Where a site's certificate comes from: acme, pillar, path; None: it has none."""
    if tls["acme"]:
        return "acme"
    if tls["certificate"] is None:
        return None
    return "path" if tls["certificate"].startswith("/") else "pillar"


def _with_port(listen: int | str, port: int) -> int | str:
    """The same address, and the same default_server, on another port."""
    return port if isinstance(listen, int) else re.sub(r"[0-9]+( |$)", rf"{port}\1", listen)


def _derive(name: str, site: dict, nginx_group: str) -> dict:
    """Put in what follows from other values, and the name."""
    project, uwsgi, socket, health = (
        site["project"],
        site["uwsgi"],
        site["socket"],
        site["health"],
    )
    if project["path"] is _UNSET:
        project["path"] = f"/srv/{name}"
    if project["user"] is _UNSET:
        project["user"] = name
    if project["group"] is _UNSET:
        project["group"] = project["user"]
    if project["requirements"] is _UNSET:
        project["requirements"] = None if project["venv"] else "requirements.txt"
    if uwsgi["package"] is _UNSET:
        uwsgi["package"] = None if uwsgi["binary"] else "pyuwsgi==2.0.30.post1"
    if socket["path"] is _UNSET:
        socket["path"] = f"/run/uwsgi/{name}.sock"
    if socket["group"] is _UNSET:
        socket["group"] = nginx_group
    if site["server_names"] is _UNSET:
        site["server_names"] = []
    if health["host"] is _UNSET:
        names = site["server_names"]
        health["host"] = _concrete(names[0]) if names else "localhost"
    site["tls"]["source"] = _tls_source(site["tls"])
    if site["tls"]["listen"] is _UNSET:
        site["tls"]["listen"] = [
            _with_port(listen, 443) for listen in site["listen"] if _address(listen)[1] == "80"
        ] or [443]
    # An absent site need not say what it runs.
    for key in ("wsgi", "settings"):
        if project[key] is _UNSET:
            project[key] = None
    return {"name": name, **site}


def _derive_source(repo: dict, source: dict, ppa: str) -> None:
    """What a package source's description leaves open, and what messages call it."""
    words = {"ppa": ppa, "name": ppa.replace("/", "-")}
    if repo["uris"] is _UNSET:
        repo["uris"] = source["address"].format(**words)
    repo["keys"] = [repo["key"]] if repo["key"] else []
    if not repo["keys"]:
        repo["keys"] = [_KEYSERVER.format(fingerprint) for fingerprint in repo["fingerprints"]]
    default = source["address"].format(**words) if source["address"] else source["uris"]
    repo["home"] = default.split("/")[2]
    repo["title"], repo["origin"] = (source[key].format(**words) for key in ("title", "origin"))


def _resolve(taken: dict, grains: dict) -> dict:
    """The settings: the platform's values, the pillar's over them, and the defaults beneath."""
    values = _laid_over(_platform(grains), taken)
    nginx = _PILLAR.keys["nginx"].fill(values.get("nginx", {}))
    if nginx["repo"] is _UNSET:
        nginx["repo"] = "distro"
    present = [
        name for name, site in values.get("sites", {}).items() if not site.get("absent", False)
    ]
    if nginx["health"] and nginx["health"]["site"] is _UNSET:
        nginx["health"]["site"] = present[0] if present else None
    lookup = _PILLAR.keys["lookup"].fill(values.get("lookup", {}))
    for kind, source in _SOURCES.items():
        _derive_source(lookup["repos"][kind], source, nginx["ppa"])
    group = nginx["group"] = _primary_group(nginx["user"])
    defaults = values.get("site_defaults", {})
    sites = {}
    for name, site in values.get("sites", {}).items():
        sites[name] = _derive(name, _SITE.fill(_laid_over(defaults, site)), group)
    return {
        "lookup": lookup,
        "purge": values.get("purge", False),
        "clean": _PILLAR.keys["clean"].fill(values.get("clean", {})),
        "schedule": _PILLAR.keys["schedule"].fill(values.get("schedule", {})),
        "nginx": nginx,
        "ec2": _PILLAR.keys["ec2"].fill(values.get("ec2", {})),
        "rollout": _PILLAR.keys["rollout"].fill(values.get("rollout", {})),
        "acme": _PILLAR.keys["acme"].fill(values.get("acme", {})),
        "site_defaults": defaults,
        "sites": sites,
    }


# --- Errors that no schema can see ------------------------------------------------------------


def _missing_of_sites(raw: dict, errors: list) -> None:
    """What a site needs and neither it nor site_defaults says."""
    defaults = raw.get("site_defaults")

    def there(tree: Any, keys: tuple[str, ...]) -> bool:
        for key in keys:
            if not isinstance(tree, dict) or key not in tree:
                return False
            tree = tree[key]
        return True

    wanted = [keys for keys in _REQUIRED_OF_SITE if not there(defaults, keys)]
    for name, site in raw["sites"].items():
        if not isinstance(site, dict) or site.get("absent") is True:
            continue
        if not isinstance(name, str) or _SITE_NAME.wrong(name):
            continue  # the name has been reported, and what is under it may be anything
        for keys in wanted:
            if there(site, keys):
                continue
            parent: Any = site
            for key in keys[:-1]:
                parent = parent.get(key, {}) if isinstance(parent, dict) else None
            if not isinstance(parent, dict):
                continue  # its wrong type has been reported
            node: _Node = _SITE
            for key in keys:
                node = node.keys[key]  # type: ignore[attr-defined]
            errors.append(_missing(("sites", _safe_key(name), *keys), node))


def _address(listen: int | str) -> tuple[str, str, bool]:
    """Where nginx listens: address (* for all IPv4), port, and whether by default_server."""
    text, _, flag = str(listen).partition(" ")
    host, _, port = text.rpartition(":")
    if host in ("", "0.0.0.0"):
        host = "*"
    return host.lower(), port, bool(flag)


def _check_host(raw: dict, grains: dict, errors: list) -> None:
    family, system = grains.get("os_family"), grains.get("os")
    if family != "Debian":
        errors.append(
            _meaning(
                (),
                f"a host of the os_family {family or 'unknown'} ({system or 'unknown'})",
                "Debian or Ubuntu, the systems that the formula supports",
            )
        )
    nginx = raw.get("nginx")
    repo = nginx.get("repo") if isinstance(nginx, dict) else None
    only = _SOURCES.get(repo, {}).get("system") if isinstance(repo, str) else None
    if only and system != only:
        errors.append(
            _meaning(
                ("nginx", "repo"),
                f"{repo!r} on {system or 'an unknown system'}",
                f"nginx.org or distro: Launchpad builds the PPA for {only} alone",
            )
        )
    ppa = nginx.get("ppa", _STABLE) if isinstance(nginx, dict) else _STABLE
    tree: Any = raw
    for key in ("lookup", "repos", "ppa", "fingerprints"):
        tree = tree.get(key) if isinstance(tree, dict) else None
    if isinstance(ppa, str) and ppa != _STABLE and tree is None:
        errors.append(
            _meaning(
                ("lookup", "repos", "ppa", "fingerprints"),
                f"nothing, where nginx:ppa is {ppa!r}",
                "the full fingerprints of that PPA's keys, which "
                f"'salt-call --local deb822_source.ppa {ppa}' prints",
            )
        )


def _check_listen(name: str, site: dict, taken: dict, errors: list) -> None:
    """One site's addresses and names against those of the sites before it (``taken``)."""
    seen: dict[tuple[str, str], tuple] = {}
    path = ("sites", name)
    words: list[tuple[tuple, int | str]] = [
        (("listen", number), listen) for number, listen in enumerate(site["listen"])
    ]
    if site["tls"]["source"]:
        words += [(("tls", "listen", n), listen) for n, listen in enumerate(site["tls"]["listen"])]
    for key, listen in words:
        host, port, default = _address(listen)
        if host.startswith("["):
            try:
                host = f"[{ipaddress.IPv6Address(host[1:-1])}]"
            except ValueError:
                errors.append(
                    _meaning(
                        (*path, *key),
                        f"{listen!r} (string)",
                        "a valid IPv6 address between the brackets",
                    )
                )
                continue
        if (host, port) in seen:
            before, same_list = seen[host, port], seen[host, port][:-1] == key[:-1]
            if same_list and dict(words)[before] == listen:
                continue  # the same word twice: the shape's own error
            errors.append(
                _meaning(
                    (*path, *key),
                    f"{listen!r}, which is item {before[-1]} {'' if same_list else 'of listen '}again",
                    "each address and port once",
                )
            )
            continue
        seen[host, port] = key
        speaks = "TLS" if key[0] == "tls" else "plain HTTP"
        other, spoken = taken.setdefault(("protocol", host, port), (name, speaks))
        if spoken != speaks:
            errors.append(
                _meaning(
                    (*path, *key),
                    f"{listen!r}, for {speaks}, while the site {other} speaks {spoken} there",
                    "one of the two on an address and port",
                )
            )
        if default:
            other = taken.setdefault(("default", host, port), name)
            if other != name:
                errors.append(
                    _meaning(
                        (*path, *key),
                        f"{listen!r}, while the site {other} is the default there already",
                        "one default_server for an address and port",
                    )
                )
    written = {
        (key, number): word
        for key in ("server_names", "redirect_from")
        for number, word in enumerate(site[key])
    }
    for key, word in written.items():
        lower = word.lower()
        # nginx takes .example.org as example.org and *.example.org.
        names = [lower[1:], f"*{lower}"] if lower.startswith(".") else [lower]
        clash = None
        for host, port in seen:
            for one in names:
                other = taken.setdefault((one, host, port), (name, key))
                again = other[0] == name and other[1][0] == key[0] and written[other[1]] == word
                if other != (name, key) and not again and clash is None:
                    clash = (other, host, port)
        if clash is not None:
            (other_site, (other_key, other_number)), host, port = clash
            where = f"port {port}" if host == "*" else f"{host}:{port}"
            whose = f"the site {other_site}"
            if other_site == name:
                same_list = other_key == key[0]
                whose = f"item {other_number} of {'the same list' if same_list else other_key}"
            errors.append(
                _meaning(
                    (*path, *key),
                    f"{word!r}, which {whose} has on {where} too",
                    "a name that is there once on its address and port",
                )
            )
    first = (site["server_names"] or ["localhost"])[0]
    if site["redirect_from"] and not re.fullmatch(_HOST, first):
        errors.append(
            _meaning(
                (*path, "redirect_from"),
                f"names, while the first of server_names is {first!r}",
                "a whole name there, as a redirect leads to it",
            )
        )


#: What each of systemd's limits takes, where that is less than the shape allows.
_LIMIT_RULES = (
    (r"CPUQuota", r"[1-9][0-9]*%", "a percentage like 150%"),
    (r"(?:CPU|IO)Weight", r"[1-9][0-9]{0,3}|10000", "a weight from 1 to 10000"),
    (r"Limit.*", r"[0-9]+[KMGT]?|infinity", "a number, a size or infinity"),
)


def _check_site(name: str, site: dict, nginx: dict, errors: list) -> None:
    """One site in itself."""
    path = ("sites", name)
    project, uwsgi, socket = site["project"], site["uwsgi"], site["socket"]
    if project["user"] == nginx["user"]:
        errors.append(
            _meaning(
                (*path, "project", "user"),
                f"{project['user']!r}, the user of nginx",
                "a user of the site's own, so that nginx's workers and the site cannot read "
                "each other's files",
                "set project:user, or another nginx:user",
            )
        )
    elif project["group"] == nginx["group"]:
        errors.append(
            _meaning(
                (*path, "project", "group"),
                f"{project['group']!r}, the group of nginx's workers",
                "a group of the site's own: nginx's group may connect to the sockets of all sites, "
                "and who connects there runs code as their users",
                "leave project:group out, or set another nginx:user",
            )
        )
    if uwsgi["binary"] and uwsgi["package"]:
        errors.append(
            _meaning(
                (*path, "uwsgi", "binary"),
                "an executable as well as a package",
                "one of uwsgi:package and uwsgi:binary",
                "write package: null where site_defaults names one",
            )
        )
    if not uwsgi["binary"] and not uwsgi["package"]:
        errors.append(
            _meaning(
                (*path, "uwsgi", "package"),
                "nothing (null), without a binary",
                "a package, or the path of an executable in uwsgi:binary",
            )
        )
    _check_project(path, project, errors)
    mode = int(socket["mode"], 8)
    if not (mode & 0o022 or (mode & 0o200 and socket["owner"] == nginx["user"])):
        errors.append(
            _meaning(
                (*path, "socket", "mode"),
                f"{socket['mode']!r}, with which nginx cannot connect",
                "a mode that lets the group write, like '0660'",
            )
        )
    elif not may_connect(
        nginx["user"],
        # The usual group: with a thousand sites /etc/group is not read for each.
        [nginx["group"]] if socket["group"] == nginx["group"] else groups_of(nginx["user"]),
        socket,
    ):
        errors.append(
            _meaning(
                (*path, "socket", "group"),
                f"{socket['group']!r}, with which nginx's user {nginx['user']!r} cannot connect: "
                f"it is no member, or the mode {socket['mode']!r} does not let it write",
                f"{nginx['group']!r}, the primary group of nginx:user, or another group of it",
                "leave socket:group out: it follows nginx:user",
            )
        )
    _check_limits((*path, "uwsgi", "limits"), uwsgi["limits"], errors)
    for option, value in uwsgi["options"].items():
        for why in uwsgi_ini.refused({option: value}):
            errors.append(
                _meaning(
                    (*path, "uwsgi", "options", option),
                    "an option that cannot be set",
                    f"another one: {why.removeprefix(f'{option}: ')}",
                )
            )
    if project["env"].get("PYTHON_JIT", "0") != "0" and "jit" not in uwsgi["sandbox"]["allow"]:
        errors.append(
            _meaning(
                (*path, "project", "env", "PYTHON_JIT"),
                "Python's compiler switched on, whose memory the sandbox does not let it execute",
                "uwsgi:sandbox:allow with jit, or no PYTHON_JIT",
            )
        )
    for name, companion in site["companions"].items():
        _check_companion((*path, "companions", name), companion, errors)


def _check_limits(path: tuple, limits: dict[str, str], errors: list) -> None:
    for limit, value in limits.items():
        for which, pattern, says in _LIMIT_RULES:
            if re.fullmatch(which, limit) and not re.fullmatch(pattern, value):
                errors.append(_meaning((*path, limit), f"{value!r}", says))
                break


def _check_companion(path: tuple, companion: dict, errors: list) -> None:
    """What runs beside a site's uWSGI: that its command and its schedule can be understood."""
    _check_limits((*path, "limits"), companion["limits"], errors)
    command = companion["command"]
    if isinstance(command, (str, list)):
        # What the words are may be a secret: it is not repeated here.
        try:
            first = (command if isinstance(command, list) else shlex.split(command))[0]
        except (ValueError, IndexError) as error:
            found = f"a text that cannot be taken apart: {error}".lower()
            errors.append(_meaning((*path, "command"), found, "a command line, or a list of words"))
        else:
            if not re.fullmatch(rf"{_PATH}|{_RELATIVE}", first):
                errors.append(
                    _meaning(
                        (*path, "command"),
                        "a first word that is no program's name or path",
                        "the name of a program in the virtual environment, manage.py, a path in "
                        "the project, or an absolute path",
                    )
                )
    if companion["schedule"] is None:
        if companion["time_limit"] is not None:
            errors.append(
                _meaning(
                    (*path, "time_limit"),
                    f"{companion['time_limit']}, of a companion that runs all the time",
                    "a schedule as well, or null",
                )
            )
        return
    wrong = __salt__["systemd_unit.wrong_calendar"](companion["schedule"])
    if wrong:
        errors.append(
            _meaning(
                (*path, "schedule"),
                f"{companion['schedule']!r} ({wrong})",
                "a time as systemd.time(7) has it, like 'Mon..Fri 08:00' or hourly",
            )
        )


#: Where a password may be sent: to this very host without TLS, too.
_PRIVATE_WAY = r"https://|http://(?:localhost|127\.0\.0\.1)(?::[0-9]+)?/"


def _check_project(path: tuple, project: dict, errors: list) -> None:
    """What a project's keys say of each other."""
    source = project["source"] or {}
    path = (*path, "project")
    if len(source) > 1:
        errors.append(
            _meaning(
                (*path, "source"),
                f"{_listing(sorted(source))} together with site_defaults",
                "one source",
                "write the source in the sites alone",
            )
        )
    if project["release"] and not source:
        errors.append(
            _meaning(
                (*path, "release"),
                f"{project['release']!r}, while the project is a tree that is run where it is",
                "null, or a source: only that has releases to go back to",
            )
        )
    git = source.get("git") or {}
    url = git.get("url")
    if isinstance(url, str) and re.match(r"ssh:|[^/]*@", url):
        if not git["host_keys"]:
            errors.append(
                _meaning(
                    (*path, "source", "git", "host_keys"),
                    "an empty list, while the URL is one of ssh",
                    "at least one key, so that no other server can take its place",
                    "see ssh-keyscan, and compare with what the server's owner publishes",
                )
            )
    elif git.get("key"):
        errors.append(
            _meaning(
                (*path, "source", "git", "key"),
                "a deploy key, while the URL is none of ssh",
                "an ssh:// URL or user@host:path",
            )
        )
    _check_packages(path, project, errors)
    logins: list[tuple[dict, tuple]] = [
        (source.get(kind) or {}, ("source", kind)) for kind in ("git", "archive")
    ]
    logins += [(index, ("indexes", n)) for n, index in enumerate(project["indexes"] or [])]
    for login, keys in logins:
        if login.get("url", _UNSET) is _UNSET:
            continue
        if bool(login.get("user")) != bool(login.get("password")):
            which = "password" if login["user"] else "user"
            errors.append(
                _meaning(
                    (*path, *keys, which),
                    "nothing (null), while the other of user and password is there",
                    "both, or neither",
                )
            )
        elif login.get("password") and not re.match(_PRIVATE_WAY, login["url"]):
            errors.append(
                _meaning(
                    (*path, *keys, "password"),
                    "a password, without a URL of https",
                    "a URL of https, which alone keeps it secret on the way",
                )
            )


def _check_packages(path: tuple, project: dict, errors: list) -> None:
    """Where a project's packages come from."""
    lock = os.path.basename(project["requirements"] or "")
    for key in ("extras", "groups"):
        if project[key] and lock not in ("pyproject.toml", "uv.lock"):
            errors.append(
                _meaning(
                    (*path, key),
                    f"{_listing(project[key])}, while requirements is {lock or 'null'}",
                    "an empty list, or a pyproject.toml or uv.lock as project:requirements",
                )
            )
    if project["indexes"] is None and not project["wheels"]:
        errors.append(
            _meaning(
                (*path, "indexes"),
                "null, without any wheels",
                "project:wheels to install from, or an empty list for the host's own index",
            )
        )
    logins: dict[str, tuple] = {}
    for number, index in enumerate(project["indexes"] or []):
        host = re.sub(r"^[a-z]+://|[:/].*$", "", str(index["url"]))
        login = (index["user"], index["password"])
        # pip knows passwords by the host's name alone, as a .netrc does.
        if logins.setdefault(host, login) != login:
            errors.append(
                _meaning(
                    (*path, "indexes", number),
                    "another user than an index before, on the same host",
                    "one user and password for each host",
                )
            )


def _check_tls(name: str, site: dict, acme: dict, errors: list) -> None:
    """One site's certificate: where it comes from, and that its key is its own."""
    path, tls = ("sites", name), site["tls"]
    given = {key: tls[key] for key in ("certificate", "key") if tls[key] is not None}
    if tls["acme"]:
        _check_acme(name, site, acme, errors)
    if tls["acme"] and given:
        errors.append(
            _meaning(
                (*path, "tls", "acme"),
                f"true, as well as a {_listing(given)}",
                "either tls:acme, or tls:certificate and tls:key",
                "write null for these where site_defaults names them",
            )
        )
    elif len(given) == 1:
        lacking = "key" if "certificate" in given else "certificate"
        errors.append(
            _meaning(
                (*path, "tls", lacking),
                "nothing, while the other of certificate and key is there",
                "both tls:certificate and tls:key, or neither",
            )
        )
    elif given and len({value.startswith("/") for value in given.values()}) == 2:
        errors.append(
            _meaning(
                (*path, "tls", "key"),
                "a path beside a text",
                "certificate and key both as paths, or both as texts",
            )
        )
    elif given:
        try:
            wrong = __salt__["site_certificate.mismatch"](**given)
        except OSError as error:
            # A directory, or a disk that fails.
            wrong = f"{error.filename} ({error.strerror})"
        if wrong:
            errors.append(
                _meaning(
                    (*path, "tls", "key"),
                    wrong,
                    "a certificate and the private key that belongs to it",
                )
            )


def _check_acme(name: str, site: dict, acme: dict, errors: list) -> None:
    if not acme["terms_agreed"]:
        found = _meaning(
            ("acme", "terms_agreed"),
            f"false, while the site {name} asks for a certificate by ACME",
            "true: the authority issues none to who has not agreed to its terms",
        )
        if not any(error["path"] == found["path"] for error in errors):
            errors.append(found)
    names = [
        (key, number, word)
        for key in ("server_names", "redirect_from")
        for number, word in enumerate(site[key])
    ]
    for key, number, word in names:
        if not re.fullmatch(rf"{_LABEL}(?:\.{_LABEL})*\.[A-Za-z][A-Za-z0-9-]*", word):
            errors.append(
                _meaning(
                    ("sites", name, key, number),
                    f"{word!r}, in a site with tls:acme",
                    "a whole domain name: a certificate for a wildcard, an address or a bare word "
                    "cannot be had by HTTP",
                    "give such a site a certificate by tls:certificate and tls:key",
                )
            )


#: Where a distribution, its packages and a run of theirs put units; /lib is a link to /usr/lib.
_UNIT_PLACES = ("/usr/lib/systemd/system", "/usr/local/lib/systemd/system", "/etc/init.d")


def _unit_files(settings: dict) -> dict[str, list[str]]:
    """What other units and scripts are called like a site's: the name behind uwsgi-, and where."""
    found: dict[str, list[str]] = {}
    for place in (settings["lookup"]["unit_dir"], *_UNIT_PLACES):
        try:
            entries = os.listdir(place)
        except OSError:
            continue
        for entry in entries:
            match = re.fullmatch(r"uwsgi-([^@.]+)@?(?:\.(?:service|socket))?", entry)
            if match:
                found.setdefault(match[1], []).append(f"{place}/{entry}")
    return found


def _is_ours(path: str, name: str) -> bool:
    """Whether a unit file is the formula's, by the sentence that each of them holds."""
    if os.path.islink(path):
        return False
    try:
        with open(path, "rb") as stream:
            return f'Django site "{name}"'.encode() in stream.read(4096)
    except OSError:
        return False


def _check_units(name: str, there: dict[str, list[str]], errors: list) -> None:
    """No site takes the place of a unit that somebody else put on the host."""
    others = [path for path in there.get(name, []) if not _is_ours(path, name)]
    if others:
        errors.append(
            _meaning(
                ("sites", name),
                f"a name whose unit would hide {_listing(sorted(others))}, which the formula did "
                "not make",
                "a name that is free, or that unit gone",
            )
        )


def _allocated(number: int) -> bool:
    """
    Whether a user or group number is a fixed one: Debian's policy (9.2.2) allocates 0 to 99 and
    60000 to 64999 itself; 65534 is nobody's, 65535 is none.
    """
    return number < 100 or 60000 <= number <= 65535


def _local_numbers(path: str) -> dict[str, int]:
    """The users of passwd(5), or the groups of group(5), with their numbers."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as table:
            rows = [line.split(":") for line in table]
    except FileNotFoundError:
        return {}
    return {row[0]: int(row[2]) for row in rows if len(row) > 3 and row[2].isdigit()}


def _account_numbers() -> dict[str, Any]:
    """
    How the numbers of users and groups are found. glibc reads the whole file for every question:
    with a thousand sites it is read once.
    """
    users, groups = _local_numbers("/etc/passwd"), _local_numbers("/etc/group")
    return {
        "user": lambda name: users.get(name) or pwd.getpwnam(name).pw_uid,
        "group": lambda name: groups.get(name) or grp.getgrnam(name).gr_gid,
    }


def _check_account(name: str, site: dict, numbers: dict[str, Any], errors: list) -> None:
    """No site runs as a user that the distribution itself defines, whatever it is called."""
    project = site["project"]
    for key, find in numbers.items():
        try:
            number = find(project[key])
        except KeyError:
            continue
        if _allocated(number):
            errors.append(
                _meaning(
                    ("sites", name, "project", key),
                    f"{project[key]!r}, which has the number {number} on this host",
                    f"a {key} of the site's own: that number is one of the system's",
                )
            )


def _check_place(name: str, site: dict, errors: list) -> None:
    """
    Releases are written by root: to a directory that only root can put another one, or a link,
    in the place of.
    """
    path = site["project"]["path"]
    if not site["project"]["source"]:
        return
    for place in dict.fromkeys((path, os.path.realpath(path))):
        for step in (*_parents(place), place):
            try:
                status = os.lstat(step)
            except OSError:
                break
            if stat.S_ISLNK(status.st_mode):
                writable = status.st_uid != 0
            else:
                writable = bool(
                    status.st_uid != 0
                    or status.st_mode & stat.S_IWOTH
                    or (status.st_mode & stat.S_IWGRP and status.st_gid != 0)
                )
            if writable:
                errors.append(
                    _meaning(
                        ("sites", name, "project", "path"),
                        f"{path!r}, while others than root may change {step!r}",
                        "with a source, a directory that root alone can change, like "
                        f"/srv/{name}: root writes the releases there",
                    )
                )
                return


def _check_layout(name: str, site: dict, state_dir: str, errors: list) -> None:
    """No release is written among those of another deployment, nor inside those of a site."""
    path = site["project"]["path"]
    if not site["project"]["source"]:
        return
    for step in (*_parents(path), path):
        place, inside = os.path.split(step)
        if inside in ("current", "releases", "shared") and _is_layout(place):
            errors.append(
                _meaning(
                    ("sites", name, "project", "path"),
                    f"{path!r}, inside the releases or the data of what is deployed at {place!r}",
                    "with a source, a directory of the site's own",
                    f"name {place} itself, or another directory",
                )
            )
            return
    foreign = _foreign_layout(name, site, state_dir)
    if foreign:
        errors.append(
            _meaning(
                ("sites", name, "project", "path"),
                f"{path!r}, which has {_listing(foreign)} of a deployment that this formula did not "
                "make",
                "with a source, a directory without another deployment's releases",
                f"name another directory and copy the database and the uploads to its shared/data "
                f"and shared/media; or leave out project:source and name {path}/current, to run "
                "what is there; or move the old deployment away first",
            )
        )


def _is_layout(place: str) -> bool:
    return os.path.islink(f"{place}/current") and os.path.isdir(f"{place}/releases")


def _foreign_layout(name: str, site: dict, state_dir: str) -> list[str]:
    """What of releases, current and shared at a site's path is another deployment's."""
    path = site["project"]["path"]
    folder = f"{state_dir}/prepared/{name}"
    try:
        live = os.readlink(f"{path}/current")
    except OSError:
        live = f"{path}/current" if os.path.lexists(f"{path}/current") else ""
    ours = re.fullmatch(r"releases/([0-9a-f]{12})", live)
    try:
        with open(f"{folder}/places.json", encoding="utf-8") as stream:
            noted = path in json.load(stream)
    except (OSError, ValueError):
        # A formula that kept no such record has left one of each release.
        noted = ours is not None and os.path.exists(f"{folder}/release-{ours[1]}.json")
    if noted:
        return []
    found = []
    if live and not ours:
        found.append("current")
    try:
        with os.scandir(f"{path}/releases") as scan:
            others = [
                entry.name
                for entry in scan
                if not entry.name.startswith(".")
                and not entry.is_symlink()
                and (
                    not re.fullmatch(r"[0-9a-f]{12}", entry.name)
                    or entry.stat(follow_symlinks=False).st_uid != 0
                )
            ]
    except OSError:
        others = []
    found += [f"releases/{each}" for each in sorted(others)[:3]]
    if os.path.isdir(f"{path}/shared") and (owner := _owner(f"{path}/shared")):
        if owner not in ("root", site["project"]["user"]):
            found.append(f"shared (of {owner})")
    return found


def _owner(path: str) -> str | None:
    """The user that a file belongs to; None where its number is no account's."""
    try:
        return pwd.getpwuid(os.lstat(path).st_uid).pw_name
    except (KeyError, OSError):
        return None


def _check_lookup(lookup: dict, errors: list) -> None:
    """What root writes is not written where any user may put a file first."""
    for key in ("nginx_dir", "uwsgi_dir", "state_dir", "unit_dir"):
        try:
            status = os.stat(lookup[key])
        except OSError:
            continue
        if not stat.S_ISDIR(status.st_mode) or status.st_mode & stat.S_IWOTH:
            errors.append(
                _meaning(
                    ("lookup", key),
                    f"{lookup[key]!r}, which is no directory, or one where any user may write",
                    "a directory that root alone can change",
                )
            )


def _homes_of_accounts() -> dict[str, str]:
    """The homes of this host's accounts, each with a user."""
    return {account.pw_dir.rstrip("/"): account.pw_name for account in pwd.getpwall()}


def _check_home(name: str, site: dict, homes: dict[str, str], errors: list) -> None:
    """No project is at a home, which holds more than a project."""
    path, user = site["project"]["path"], site["project"]["user"]
    owner = homes.get(path)
    # An account of the project's own may have its home there; a person's is below /home.
    if re.fullmatch(r"/home/[^/]+", path) or (owner and owner != user):
        errors.append(
            _meaning(
                ("sites", name, "project", "path"),
                f"{path!r}, the home of {owner or 'a user'}",
                "a directory that holds the project and nothing else",
                f"name a directory in it, like {path}/{name}, or /srv/{name}",
            )
        )


def _check_across(raw: dict, settings: dict, errors: list) -> None:
    """The sites against each other, against nginx and against what else is on the host."""
    _check_lookup(settings["lookup"], errors)
    _check_ingress(settings["ec2"]["ingress"], ("ec2", "ingress"), errors)
    units = _unit_files(settings)
    listening: dict = {}
    folded: dict[str, str] = {}
    owned: dict[tuple[str, str], str] = {}
    paths: dict[str, str] = {}
    numbers = _account_numbers()
    homes = _homes_of_accounts()
    for name, site in settings["sites"].items():
        path = ("sites", name)
        plain = name.replace("_", "-")
        other = folded.setdefault(plain, name)
        if other != name:
            errors.append(
                _meaning(
                    path,
                    f"a name that differs from the site {other} in - and _ alone",
                    "names that nobody mistakes for each other",
                )
            )
        _check_units(name, units, errors)
        if site["absent"]:
            continue
        _check_site(name, site, settings["nginx"], errors)
        _check_tls(name, site, settings["acme"], errors)
        _check_account(name, site, numbers, errors)
        _check_place(name, site, errors)
        _check_home(name, site, homes, errors)
        _check_layout(name, site, settings["lookup"]["state_dir"], errors)
        _check_listen(name, site, listening, errors)
        _check_serving(name, site, settings["nginx"], errors)
        for keys, what in (
            (("project", "user"), "a user"),
            (("socket", "path"), "a socket"),
        ):
            value = site[keys[0]][keys[1]]
            other = owned.setdefault((what, value), name)
            if other != name:
                errors.append(
                    _meaning(
                        (*path, *keys),
                        f"{value!r}, which the site {other} has too",
                        f"{what} of the site's own",
                    )
                )
        paths.setdefault(site["project"]["path"], name)
        if paths[site["project"]["path"]] != name:
            errors.append(
                _meaning(
                    (*path, "project", "path"),
                    f"{site['project']['path']!r}, which the site "
                    f"{paths[site['project']['path']]} has too",
                    "a directory of the site's own",
                )
            )
    _check_nested(settings, paths, errors)
    _check_snippet(("nginx", "snippet"), settings["nginx"]["snippet"], errors)
    health = settings["nginx"]["health"]
    there = [name for name, site in settings["sites"].items() if not site["absent"]]
    if health and there and health["site"] not in there:
        errors.append(
            _meaning(
                ("nginx", "health", "site"),
                f"{health['site']!r}, which is no site",
                f"one of {_listing(there, 'or')}",
            )
        )


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:end]) for end in range(2, len(parts))]


def _check_nested(settings: dict, paths: dict[str, str], errors: list) -> None:
    """No site's project inside another's, and none in what a removal with its data removes."""
    for path, name in paths.items():
        for parent in _parents(path):
            if parent in paths:
                errors.append(
                    _meaning(
                        ("sites", name, "project", "path"),
                        f"{path!r}, inside {parent!r} of the site {paths[parent]}",
                        "a directory outside the other sites' projects",
                    )
                )
    if not settings["clean"]["data"]:
        return
    going = {
        site["project"]["path"]: name for name, site in settings["sites"].items() if site["absent"]
    }
    for path, name in paths.items():
        for parent in (path, *_parents(path)):
            if parent in going:
                errors.append(
                    _meaning(
                        ("sites", name, "project", "path"),
                        f"{path!r}, which goes with the absent site {going[parent]}, as "
                        "clean:data is true",
                        "a directory that stays",
                    )
                )


def _name_by_instance(taken: dict, errors: list) -> None:
    """Put the instance's own names in the place of ``ec2:...``; nobody is asked without one."""
    defaults = taken.get("site_defaults", {})
    places: list[tuple[tuple[str, ...], dict]] = [(("site_defaults",), defaults)]
    places += [(("sites", name), site) for name, site in taken.get("sites", {}).items()]
    names: dict[str, str | None] | None = None
    for path, place in places:
        wanted = place.get("server_names", [])
        if place.get("absent") or not any(one.startswith("ec2:") for one in wanted):
            continue
        if names is None:
            try:
                endpoint = taken.get("ec2", {}).get("metadata")
                names = __salt__["ec2_instance.facts"](endpoint).get("names", {})
            except CommandExecutionError as error:
                # Not without them: a site that lost its names would answer nobody.
                number = next(n for n, one in enumerate(wanted) if one.startswith("ec2:"))
                here = (*path, "server_names", number)
                errors.append(_meaning(here, repr(wanted[number]), "an answer", str(error)))
                return
        found = [names.get(one[4:]) if one.startswith("ec2:") else one for one in wanted]
        # An instance's name may be written out beside it too.
        place["server_names"] = [one for one in dict.fromkeys(found) if one is not None]
        if not place["server_names"]:
            errors.append(
                _meaning(
                    (*path, "server_names"),
                    f"{_listing(wanted)}, none of which this host has",
                    "at least one name that it has",
                    "" if names else "the firmware does not say that it is an EC2 instance",
                )
            )


def _evaluate(pillar: Any, grains: dict) -> tuple[list, dict | None]:
    """Every error, and the settings where there is none."""
    errors: list = []
    broken = pillar.get("_errors") if isinstance(pillar, dict) else None
    if broken:
        # Its text quotes the pillar's lines, with their secrets: it stays where it is.
        errors.append(
            _meaning(
                (),
                f"a pillar that did not render ({len(broken)} errors)",
                "a pillar that renders",
                "see the log of the master, or of salt-call --local pillar.items; a key that is "
                "written twice is one cause",
            )
        )
    if not isinstance(pillar, dict) or _ROOT not in pillar:
        if not broken:
            hint = _did_you_mean(_ROOT, pillar) if isinstance(pillar, dict) and pillar else ""
            near = re.fullmatch(r"did you mean (.*)\?", hint)
            errors.append(
                _error(
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
    raw = pillar[_ROOT]
    if not isinstance(raw, dict):
        _PILLAR.take(raw, (), errors)
        return errors, None
    taken = _PILLAR.take(raw, (), errors)
    if not isinstance(raw.get("sites"), dict):
        return errors, None
    _missing_of_sites(raw, errors)
    _check_host(raw, grains, errors)
    _name_by_instance(taken, errors)
    # A value that is wrong has been left out of `taken`, so its default stands in for it here.
    settings = _resolve(taken, grains)
    _check_across(raw, settings, errors)
    return errors, None if errors else settings


def _relevant(grains: Any) -> dict:
    return {key: grains.get(key) for key in _GRAINS}


def _verdict() -> tuple[list, dict | None]:
    """
    :py:func:`_evaluate` of this minion's pillar, once per pillar and not once per state.

    The pillar in memory is the same object for a whole run; should it be another, its content
    decides. (Equality would not do: True == 1.)
    """
    raw = __pillar__.get(_ROOT)
    cached = __context__.get("site_pillar")
    grains = tuple(map(__grains__.get, _GRAINS))
    if cached is not None and cached["grains"] == grains and not __pillar__.get("_errors"):
        if cached["raw"] is raw and raw is not None:
            return cached["verdict"]
        if cached["digest"] == _digest(raw):
            cached["raw"] = raw
            return cached["verdict"]
    pillar: dict = {}
    for key in (_ROOT, "_errors"):
        if key in __pillar__:
            pillar[key] = __pillar__[key]
    if _ROOT not in pillar:
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
    # While the host is looked at (host_survey.begun) the pillar stays the same object.
    survey = __context__.get("host_survey")
    errors, values = _verdict() if survey is None else survey.once(("pillar",), _verdict)
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
        hint = _did_you_mean(str(name), sites)
        raise CommandExecutionError(
            f"the pillar has no site {name!r} under {_ROOT}:sites{'; ' + hint if hint else ''}"
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
    if not isinstance(name, str) or _SITE_NAME.wrong(name):
        raise CommandExecutionError(
            f"{_safe_key(name)!r} is no name of a site: expected {_SITE_NAME.expected()}"
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
    taken = _INGRESS.take(value, ("ec2", "ingress"), errors)
    filled = None if errors else _INGRESS.fill(taken)
    _check_ingress(filled, ("ec2", "ingress"), errors)
    if errors or filled is None:
        raise CommandExecutionError("\n".join(map(_sentence, errors)) or "ingress: found null")
    return filled


def _flat(node: _Node, value: Any, path: tuple[str, ...]) -> Any:
    """The leaves of settings: (path, node, value)."""
    if isinstance(node, _Mapping) and isinstance(value, dict) and node.keys:
        for key, child in node.keys.items():
            yield from _flat(child, value.get(key), (*path, key))
    elif isinstance(node, _Table) and isinstance(value, dict) and value:
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


def show(name: str | None = None) -> dict:
    """
    The settings in force and where each comes from, without secrets.

    name
        one site's name; without it, everything

    Returns a mapping from pillar path to ``value`` and ``origin``: ``default``, ``platform``
    (a default that the os_family, os or osfinger
    grain decides), ``derived`` (from other values),
    ``lookup``, ``pillar``, ``site_defaults`` or ``site``. Secrets are shown as asterisks.

    Raises CommandExecutionError when the pillar is not valid or has no such site.

    CLI Example:

    .. code-block:: bash

        salt '*' site_pillar.show mysite

    .. versionadded:: 0.1.0
    """
    values = settings()
    raw = __pillar__[_ROOT]
    platform = _platform(_relevant(__grains__))
    shown: dict[str, dict] = {}

    def add(path: tuple[str, ...], node: _Node, value: Any, origin: str) -> None:
        secret = node.hides and not node.private and value not in (None, {}, [])
        shown[":".join(path)] = {
            "value": _MASK if secret else copy.deepcopy(value),
            "origin": origin,
        }

    def unsaid(node: _Node) -> str:
        return "derived" if isinstance(node.default, _Derived) else "default"

    if name is None:
        for key in ("lookup", "purge", "clean", "schedule", "nginx", "ec2", "rollout", "acme"):
            for path, node, value in _flat(_PILLAR.keys[key], values[key], (key,)):
                if _says(raw, path):
                    origin = "lookup" if key == "lookup" else "pillar"
                else:
                    origin = "platform" if _says(platform, path) else unsaid(node)
                add(path, node, value, origin)
    for one in values["sites"] if name is None else [site(name)["name"]]:
        for path, node, value in _flat(_SITE, values["sites"][one], ()):
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

    def plain(node: _Node) -> Any:
        if isinstance(node, _Mapping) and node.default is _BY_KEYS:
            return {key: plain(child) for key, child in node.keys.items()}
        if node.default is _REQUIRED:
            return "<required>"
        if isinstance(node.default, _Derived):
            return f"<{node.default.says}>"
        return copy.deepcopy(node.default)

    values = {
        key: plain(node)
        for key, node in _PILLAR.keys.items()
        if key not in ("sites", "site_defaults")
    }
    values["site_defaults"] = {}
    values["sites"] = {"SITE": plain(_SITE)}
    platforms: dict[str, dict] = {}
    for grain, wanted, more in _PLATFORMS:
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
    root = _PILLAR.schema()
    # The two share everything but `absent`: written once, referred to twice.
    shared = _DEFAULTS_OF_SITES.schema()["properties"]
    absent = _SITE.keys["absent"].schema()
    reference = {key: {"$ref": f"#/$defs/{key}"} for key in shared}
    root["properties"]["site_defaults"] = {
        "description": _DEFAULTS_OF_SITES.description,
        "type": "object",
        "properties": dict(reference),
        "additionalProperties": False,
    }
    root["properties"]["sites"]["additionalProperties"] = {
        "description": _SITE.description,
        "type": "object",
        "properties": {"absent": absent, **reference},
        "additionalProperties": False,
    }
    root["allOf"] = [_required_unless_default(keys) for keys in _REQUIRED_OF_SITE]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Pillar of nginx_uwsgi_django",
        "type": "object",
        "properties": {_ROOT: root},
        "required": [_ROOT],
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
