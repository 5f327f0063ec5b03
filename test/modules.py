"""
The formula's own modules, wired to each other as a minion's loader would: no host, no mock.
"""

import importlib.util
import pathlib
import types
from collections.abc import Callable, Iterator
from typing import Any

from .hosts.paths import FORMULA


class Functions(dict[str, Callable[..., Any]]):
    """``__salt__``: the formula's own functions at once, Salt's stock ones when first asked for."""

    def __init__(self, opts: dict[str, Any]) -> None:
        super().__init__()
        self._opts = opts
        self._stock: Any = None

    def __missing__(self, name: str) -> Callable[..., Any]:
        if self._stock is None:
            import salt.loader

            self._stock = salt.loader.minion_mods(self._opts)
        function: Callable[..., Any] = self._stock[name]
        return function


class Modules:
    """
    Freshly loaded copies of everything in ``_modules`` and ``_states``.

    Attributes are the execution modules by name (``m.site_pillar.settings()``); ``m.states`` has
    the state modules (``m.states.nginx_tree.applied(...)``); ``m.salt`` is their ``__salt__``.
    """

    def __init__(
        self,
        pillar: dict[str, Any] | None = None,
        grains: dict[str, Any] | None = None,
        opts: dict[str, Any] | None = None,
        test: bool = False,
    ) -> None:
        self.opts = _minion_opts()
        self.opts.update(opts or {})
        self.opts["test"] = test
        self.opts["grains"] = dict(grains if grains is not None else self.opts["grains"])
        self.opts["pillar"] = pillar or {}
        self.salt = Functions(self.opts)
        self.context: dict[str, Any] = {}
        self.states = types.SimpleNamespace()
        self.refused: dict[str, str] = {}
        state_functions: dict[str, Callable[..., Any]] = {}
        for name, module in self._load("_modules"):
            setattr(self, name, module)
            self.salt.update({f"{name}.{key}": value for key, value in _public(module)})
        for name, module in self._load("_states"):
            setattr(self.states, name, module)
            state_functions.update({f"{name}.{key}": value for key, value in _public(module)})
            module.__states__ = state_functions  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        # Reached only for what __init__ did not set; also tells mypy that names come and go.
        raise AttributeError(f"there is no execution module {name!r}; refused: {self.refused}")

    def _load(self, folder: str) -> Iterator[tuple[str, types.ModuleType]]:
        for path in sorted((FORMULA / folder).glob("[!_]*.py")):
            module = _import(path)
            for dunder, value in {
                "__salt__": self.salt,
                "__opts__": self.opts,
                "__grains__": self.opts["grains"],
                "__pillar__": self.opts["pillar"],
                "__context__": self.context,
                "__env__": "base",
            }.items():
                setattr(module, dunder, value)
            name = str(getattr(module, "__virtualname__", path.stem))
            said = module.__virtual__() if hasattr(module, "__virtual__") else True
            if said is False or isinstance(said, tuple):
                self.refused[f"{folder}/{name}"] = str(said)
                continue
            yield (said if isinstance(said, str) else name), module


def _import(path: pathlib.Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}.{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _public(module: types.ModuleType) -> Iterator[tuple[str, Callable[..., Any]]]:
    aliases = getattr(module, "__func_alias__", {})
    for name, value in vars(module).items():
        if isinstance(value, types.FunctionType) and not name.startswith("_"):
            # What a module imported from elsewhere is not a function of it.
            if value.__module__ == module.__name__:
                yield aliases.get(name, name), value


def _minion_opts() -> dict[str, Any]:
    import salt.config

    opts: dict[str, Any] = salt.config.minion_config(None)
    opts.update({"id": "unit", "file_client": "local", "grains": _GRAINS.copy()})
    return opts


# Debian 12's, as far as the formula asks.
_GRAINS = {
    "id": "unit",
    "os": "Debian",
    "os_family": "Debian",
    "oscodename": "bookworm",
    "osrelease": "12",
    "osmajorrelease": 12,
    "osarch": "amd64",
    "cpuarch": "x86_64",
    "kernel": "Linux",
    "init": "systemd",
}
