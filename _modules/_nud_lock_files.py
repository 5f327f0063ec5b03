"""
The files that say which packages a project needs: one class per format.

A ``requirements.txt`` is pip's own. Of a ``pyproject.toml`` the dependencies are installed, and the
project itself where it is a package (it has a ``[build-system]``). uv itself translates a ``uv.lock``
for pip, hashes included.
"""

import codecs
import json
import os
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from salt.exceptions import CommandExecutionError

from _nud_program import source

# The longer of two marks that begin alike stands first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CODING = re.compile(rb"coding[:=]\s*([-\w.]+)")
# What reads a uv.lock: nothing but `uv export` of it runs, and without the network.
UV = "uv==0.13.9"

# `-r file`, `-rfile`, `--requirement file`, `--requirement=file`, and the same for constraints:
# https://pip.pypa.io/en/stable/reference/requirements-file-format/
_INCLUDE = re.compile(r"\A(?:-r|-c|--requirement|--constraint)(?:\s*=\s*|\s*)(?P<file>\S+)")
_LOCAL = re.compile(r"\A(?:-e\b|--editable\b|\.{0,2}/|\.(?:\s|\[|\Z)|file:)|\s@\s+file:")
_HASH = re.compile(r"(?:\s|\\\n|\A)--hash[=\s]")
# In a pyproject.toml, a table that makes the project a package.
_PACKAGE = re.compile(r"^[ \t]*\[[ \t]*build-system[ \t]*\]", re.MULTILINE)
# In a uv.lock, a package that lies in the project: https://docs.astral.sh/uv/concepts/projects/layout/
_UV_LOCAL = re.compile(r"^source = \{ (?:editable|directory) = \"([^\"]+)\" \}", re.MULTILINE)


class Workshop(NamedTuple):
    """Where and how an environment is being built, as the site's user."""

    #: the directory of the release
    release: str
    #: a directory for what is needed while it is built
    scratch: str
    #: the environment's interpreter
    python: str
    #: runs a program: its words, the working directory, what it does, its standard input
    step: Callable[[list[str], str, str, str], None]
    #: has pip install something: its words, the working directory, what it does
    install: Callable[[list[str], str, str], None]


class Wanted(NamedTuple):
    """What pip is to install for a project."""

    #: words for its command line
    words: list[str]
    #: whether hashes are enforced
    hashed: bool
    #: packages in the project that are installed afterwards, without their dependencies
    local: list[str]


class Requirements:
    """A requirements.txt, with the files that it includes."""

    def __init__(self, project: dict[str, Any], source: str, key: str) -> None:
        """
        project
            the pillar's settings of it
        source
            a directory with its files
        key
            the pillar path of ``project:requirements``
        """
        self.project = project
        self.source = source
        self.key = key
        self.entry = os.path.normpath(project["requirements"])
        #: the texts of all files that count, by their path in the project
        self.texts = self._read()

    @property
    def local(self) -> bool:
        """Whether a package that lies in the project is part of the environment."""
        lines = [line.strip() for text in self.texts.values() for line in text.splitlines()]
        return any(_LOCAL.search(line) for line in lines)

    def wanted(self, workshop: Workshop) -> Wanted:
        """What pip is to install."""
        hashed = any(_HASH.search(text) for text in self.texts.values())
        return Wanted(["-r", os.path.join(workshop.release, self.entry)], hashed, [])

    def _read(self) -> dict[str, str]:
        texts: dict[str, str] = {}
        pending: list[tuple[str, str | None]] = [(self.entry, None)]
        while pending:
            relative, including = pending.pop()
            if relative in texts:
                continue
            if os.path.isabs(relative) or relative.split(os.sep)[0] == os.pardir:
                raise CommandExecutionError(
                    f"{relative}, included by {including or self.key}, is outside the project: an "
                    "environment is made of the project's own files"
                )
            texts[relative] = text = self._text(relative, including)
            for line in text.splitlines():
                match = _INCLUDE.match(line.strip())
                if match and "://" not in match.group("file"):
                    included = os.path.join(os.path.dirname(relative), match.group("file"))
                    pending.append((os.path.normpath(included), relative))
        return texts

    def _text(self, relative: str, including: str | None = None) -> str:
        path = os.path.join(self.source, relative)
        try:
            with open(path, "rb") as stream:
                return _decoded(stream.read())
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            where = f"included by {including}" if including else f"asked for by {self.key}"
            ((kind, said),) = (self.project["source"] or {"path": self.source}).items()
            # Where its owner has it, not where Salt keeps a copy.
            place = said if kind in ("path", "salt") else said["url"]
            raise CommandExecutionError(
                f"there is no requirements file {relative} in {place}, {where}: add it to the "
                f"project, or set {self.key} to another or to null"
            ) from None
        except (OSError, UnicodeDecodeError, LookupError) as error:
            raise CommandExecutionError(f"{path} cannot be read: {error}") from error

    def _listed(self, workshop: Workshop) -> str:
        """The requirements file that is made of a file of another format."""
        return os.path.join(workshop.scratch, "requirements.txt")

    def _folder(self, workshop: Workshop) -> str:
        """The directory of the file in the release."""
        return os.path.join(workshop.release, os.path.dirname(self.entry)).rstrip(os.sep)

    def _copied(self, workshop: Workshop) -> str:
        """A copy of the project: a build writes beside the code, and the release is root's."""
        copy = os.path.join(workshop.scratch, "project")
        argv = ["/bin/cp", "-R", "-P", "--", self._folder(workshop), copy]
        workshop.step(argv, workshop.release, "copying the project", "")
        return copy


class Pyproject(Requirements):
    """A pyproject.toml."""

    @property
    def local(self) -> bool:
        """Whether the project is a package."""
        return bool(_PACKAGE.search(self.texts[self.entry]))

    def wanted(self, workshop: Workshop) -> Wanted:
        """What pip is to install."""
        listed = self._listed(workshop)
        extras = self.project["extras"]
        package = [self._copied(workshop)] if self.local else []
        request = {
            "path": os.path.join(workshop.release, self.entry),
            "to": listed,
            "package": self.local,
            "extras": extras,
            "groups": self.project["groups"],
        }
        argv = [workshop.python, "-I", "-c", source("pyproject_reader")]
        workshop.step(argv, workshop.release, f"reading {self.entry}", json.dumps(request))
        chosen = f"[{','.join(extras)}]" if extras else ""
        return Wanted(["-r", listed, *(each + chosen for each in package)], False, [])

    def _read(self) -> dict[str, str]:
        return {self.entry: self._text(self.entry)}


class UvLock(Requirements):
    """A uv.lock, beside its pyproject.toml."""

    @property
    def local(self) -> bool:
        """Whether a package that lies in the project is locked."""
        return bool(_UV_LOCAL.search(self.texts[self.entry]))

    def wanted(self, workshop: Workshop) -> Wanted:
        """What pip is to install: the lock, translated for it with its hashes."""
        copy = self._copied(workshop) if self.local else ""
        self._export(workshop)
        members = _UV_LOCAL.findall(self.texts[self.entry])
        local = [os.path.normpath(f"{copy}/{member}") for member in members]
        return Wanted(["-r", self._listed(workshop)], ", hash = " in self.texts[self.entry], local)

    def _read(self) -> dict[str, str]:
        beside = os.path.join(os.path.dirname(self.entry), "pyproject.toml")
        return {self.entry: self._text(self.entry), beside: self._text(beside, self.entry)}

    def _export(self, workshop: Workshop) -> None:
        scratch = workshop.scratch
        tool = os.path.join(scratch, "uv")
        what = f"installing {UV}, to read uv.lock"
        workshop.install(["--target", tool, UV], scratch, what)
        argv = [
            os.path.join(tool, "bin", "uv"),
            "export",
            # The lock as it is: nothing is resolved again.
            "--frozen",
            "--offline",
            "--no-config",
            "--no-python-downloads",
            f"--python={workshop.python}",
            f"--cache-dir={scratch}/uv-cache",
            f"--project={self._folder(workshop)}",
            "--format=requirements.txt",
            "--no-emit-local",
            "--no-default-groups",
            *(f"--extra={extra}" for extra in self.project["extras"]),
            *(f"--group={group}" for group in self.project["groups"]),
            f"--output-file={self._listed(workshop)}",
            "--quiet",
        ]
        workshop.step(argv, scratch, "reading uv.lock", "")


# By the file's name; any other is a requirements.txt.
_FORMATS: dict[str, type[Requirements]] = {"pyproject.toml": Pyproject, "uv.lock": UvLock}


def lock(project: dict[str, Any], source: str, key: str) -> Requirements:
    """
    Read the file that says which packages a project needs.

    project
        the pillar's settings of it
    source
        a directory with its files
    key
        the pillar path of ``project:requirements``

    Returns its format, with the texts.

    Raises CommandExecutionError when a file is missing or cannot be read.
    """
    kind = os.path.basename(os.path.normpath(project["requirements"]))
    return _FORMATS.get(kind, Requirements)(project, source, key)


def _decoded(raw: bytes) -> str:
    """
    A text as pip reads it: by its byte order mark (`pip freeze >` of PowerShell writes UTF-16), by a
    comment in one of its first two lines (PEP 263), or else as UTF-8; pip/_internal/req/req_file.py.
    """
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            text = raw[len(mark) :].decode(encoding)
            break
    else:
        said = [_CODING.search(line) for line in raw.split(b"\n")[:2] if line.startswith(b"#")]
        named = next((match[1].decode("ascii") for match in said if match), "utf-8")
        text = raw.decode(named)
    return text.replace("\r\n", "\n").replace("\r", "\n")
