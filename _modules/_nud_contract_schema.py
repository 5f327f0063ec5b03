"""
The kinds of value that a pillar can hold, and the errors that say what is wrong with one.

A kind reads a value, fills in its defaults, and describes itself as JSON Schema. Nothing beyond
Python's standard library is used: no Salt release ships ``jsonschema``.
"""

import copy
import difflib
import functools
import re
from collections.abc import Callable
from typing import Any

#: The pillar key that all of it stands under.
ROOT = "nginx_uwsgi_django"


# What a default can be besides a value.
REQUIRED = object()
BY_KEYS = object()
UNSET = object()


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


class Derived:
    """A default that is worked out from other values; the sentence says how."""

    def __init__(self, says: str) -> None:
        self.says = says


class Node:
    """One kind of value: reads it, fills in its defaults, and describes itself as JSON Schema."""

    #: The YAML types that can be right here, null apart.
    types: tuple[str, ...] = ()

    def __init__(
        self,
        says: str = "",
        description: str = "",
        default: Any = REQUIRED,
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
            errors.append(error_at(path, self, value, hint=_type_hint(self, value)))
            return UNSET
        return self.read(value, path, errors)

    def fits(self, value: Any) -> bool:
        return _type_name(value) in self.types

    def read(self, value: Any, path: tuple, errors: list) -> Any:
        raise NotImplementedError

    def fill(self, value: Any) -> Any:
        return value

    def fresh(self) -> Any:
        """A new copy of the default; ``_UNSET`` when there is none to copy."""
        if self.default is REQUIRED or isinstance(self.default, Derived):
            return UNSET
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
        if isinstance(self.default, Derived):
            text = f"{text} Default: {self.default.says}."
        elif self.default is not REQUIRED and self.default is not BY_KEYS:
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


class Text(Node):
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
            hint = did_you_mean(value, self.choices)
        if not hint and not self.hides:
            hint = _text_hint(value)
        errors.append(error_at(path, self, value, expected, hint))
        return UNSET

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


class Number(Node):
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
        errors.append(error_at(path, self, value, hint=hint))
        return UNSET

    def shape(self) -> dict:
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


class Switch(Node):
    """true or false."""

    types = ("boolean",)

    def __init__(self, **more: Any) -> None:
        super().__init__("true or false", **more)

    def read(self, value: Any, path: tuple, errors: list) -> Any:
        return value

    def shape(self) -> dict:
        return {"type": "boolean"}


class Plain(Node):
    """Text, a whole number or a boolean, told apart by type; the text has its own rules."""

    def __init__(self, *options: Node, says: str, as_text: bool = False, **more: Any) -> None:
        super().__init__(says, **more)
        self.options = options
        self.as_text = as_text
        texts = any(isinstance(option, Text) for option in options)
        for option in options:
            if isinstance(option, Number):
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


class List(Node):
    """A list of values of one kind."""

    types = ("list",)

    def __init__(
        self, items: Node, says: str, least: int = 0, unique: bool = False, **more: Any
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
            errors.append(error_at(path, self, value))
            return UNSET
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
                        error_at(
                            (*path, number),
                            self.items,
                            item,
                            f"each value once; item {seen[key]} is the same",
                        )
                    )
                else:
                    seen[key] = number
        return [item for item in taken if item is not UNSET]

    def fill(self, value: Any) -> Any:
        return None if value is None else [self.items.fill(item) for item in value]

    def shape(self) -> dict:
        shape: dict[str, Any] = {"type": "array", "items": self.items.schema()}
        if self.least:
            shape["minItems"] = self.least
        if self.unique:
            shape["uniqueItems"] = True
        return shape


class Mapping(Node):
    """A mapping with fixed keys."""

    types = ("mapping",)

    def __init__(
        self,
        keys: dict[str, Node],
        required: tuple[str, ...] = (),
        one: bool = False,
        **more: Any,
    ) -> None:
        more.setdefault("default", BY_KEYS)
        says = f"a mapping of {listing(sorted(keys))}" if keys else "an empty mapping"
        if one:
            says = f"a mapping with one of {listing(sorted(keys), 'or')}"
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
            if item is not UNSET:
                taken[key] = item
        for key in self.required:
            if key not in value:
                errors.append(missing_error((*path, key), self.keys[key]))
        if self.one and len(value) != 1:
            errors.append(error_at(path, self, value))
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
        return self.fill({}) if self.default is BY_KEYS else super().fresh()

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


class Table(Node):
    """A mapping with free keys of one kind and values of one kind."""

    types = ("mapping",)

    def __init__(self, key: Text, value: Node, says: str, least: int = 0, **more: Any) -> None:
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
            errors.append(error_at(path, self, value))
        for key, item in value.items():
            if not isinstance(key, str):
                errors.append(_odd_key(path, key, self.key.says))
                continue
            expected = self.key.wrong(key)
            if expected is not None:
                hint = did_you_mean(key, self.key.choices) if self.key.choices else ""
                errors.append(key_error(path, key, expected, hint))
                continue
            item = self.value.take(item, (*path, key), errors)
            if item is not UNSET:
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
def listing(words: Any, last: str = "and") -> str:
    words = [str(word) for word in words]
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


def shown(node: Node | None, value: Any) -> str:
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
    return ":".join(part if isinstance(part, str) else repr(part) for part in (ROOT, *path))


def safe_key(key: Any) -> str:
    """A key that a person wrote, made fit for one line of text."""
    if not isinstance(key, str):
        return repr(key)
    name = re.split("[:=]", key, maxsplit=1)[0]
    shown = ascii(name)[1:-1]
    if name != key:
        # `SECRET_KEY:value`, without a blank: what follows may be a secret.
        return f"{shown[:70]}..."
    return shown if len(shown) <= 80 else f"{shown[:70]}..."


def error_at(
    path: tuple,
    node: Node | None,
    value: Any,
    expected: str = "",
    hint: str = "",
    rule: str = "shape",
) -> dict:
    return {
        "path": _join(path),
        "found": shown(node, value),
        "expected": expected or (node.expected() if node is not None else ""),
        "hint": hint,
        "rule": rule,
    }


def meaning_error(path: tuple, found: str, expected: str, hint: str = "") -> dict:
    """An error that no schema can see: between two values, or between a value and the host."""
    return {
        "path": _join(path),
        "found": found,
        "expected": expected,
        "hint": hint,
        "rule": "meaning",
    }


def missing_error(path: tuple, node: Node) -> dict:
    hint = f"for example {_yaml_inline(node.example)}" if node.example is not None else ""
    return {
        "path": _join(path),
        "found": "no such key",
        "expected": node.expected(),
        "hint": hint,
        "rule": "shape",
    }


def key_error(path: tuple, key: str, expected: str, hint: str = "") -> dict:
    shown = safe_key(key)
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
        "path": _join((*path, safe_key(key))),
        "found": f"a key that is {shown(None, key).replace(' (not shown)', '')}: {key!r}",
        "expected": says or "a key that is a string",
        "hint": hint,
        "rule": "shape",
    }


def _nowhere(key: str) -> tuple[str, ...]:
    return ()


#: Where else in the pillar a key is right. The contract, which knows all keys, puts its answer here.
elsewhere: Callable[[str], tuple[str, ...]] = _nowhere


def _unknown_key(path: tuple, key: Any, item: Any, parent: Mapping) -> dict:
    if not isinstance(key, str):
        return _odd_key(path, key, _one_of(parent))
    hint = _blank_hint(key) or did_you_mean(key, parent.keys)
    if re.fullmatch(r"(?i:web[-_]?sockets?|asgi|channels|daphne)", key):
        hint = (
            "nginx and uWSGI speak the uwsgi protocol here, which carries no websockets: let a "
            "server of its own serve them, and pass their path on to it in snippet"
        )
    if not hint:
        # The right key in the wrong place, like processes beside uwsgi.
        homes = elsewhere(key)
        if homes:
            hint = f"{key} belongs to {listing(homes, 'or')}"
    return {
        "path": _join((*path, safe_key(key))),
        # Never the value: a misspelt env or password would put a secret into the report.
        "found": f"an unknown key with {shown(None, item).replace(' (not shown)', '')}",
        "expected": _one_of(parent),
        "hint": hint,
        "rule": "shape",
    }


def _one_of(parent: Mapping) -> str:
    return (
        f"one of {', '.join(parent.keys)}" if parent.keys else "nothing, as there are no keys yet"
    )


def did_you_mean(word: str, known: Any) -> str:
    plain = {re.sub(r"[-_. ]", "", name.lower()): name for name in known}
    found = difflib.get_close_matches(re.sub(r"[-_. ]", "", word.lower()), plain, 1, 0.7)
    return f"did you mean {plain[found[0]]}?" if found else ""


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


def _type_hint(node: Node, value: Any) -> str:
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


def _string_hint(node: Node, value: str) -> str:
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


def parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:end]) for end in range(2, len(parts))]
