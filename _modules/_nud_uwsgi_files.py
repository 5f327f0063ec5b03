"""
The files of a site's generations.

A generation is named by the digest of all that its process is made of: the ini, the unit, the release,
the virtual environment, the environment file, the interpreter and uWSGI itself. Its files are written
once and never edited, so that the host itself tells what was edited since.
"""

import hashlib
import json
import os
import re
from typing import Any, NamedTuple

from salt.exceptions import CommandExecutionError, SaltInvocationError

from _nud_durable_file import differs, link, read, remove
from _nud_executables import of_uwsgi, sorted_glob
from _nud_uwsgi_unit import DIGEST, Plan, account, paths, program, unit_text

# Goes into every digest: another number makes every site's next run a new generation.
_FORMAT = 1

# How many generations' files stay on the host, the running one among them.
_KEEP = 5


class Generation(NamedTuple):
    """
    A generation with the texts of its files. The environment may hold secrets.

    digest
        12 hexadecimal digits
    parts
        what the digest is made of
    ini, unit, environment
        texts
    program
        the path of uWSGI
    """

    digest: str
    parts: dict[str, Any]
    ini: str
    unit: str
    environment: str
    program: str


def digest_of(parts: dict[str, Any]) -> str:
    """
    The name of a generation.

    parts
        what it is made of

    Returns 12 hexadecimal digits.
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def planned(plan: Plan, ini: str, environment: str, plugin: str | None) -> Generation:
    """
    The generation of a plan.

    plan
        of the site
    ini, environment
        the texts of these files, with ``DIGEST`` in place of the digest
    plugin
        the plugin with uWSGI's Python; None where uWSGI has it built in

    Returns the generation.
    """
    unit = unit_text(plan, DIGEST)
    parts = {
        "format": _FORMAT,
        "ini": hashlib.sha256(ini.encode()).hexdigest(),
        "unit": hashlib.sha256(unit.encode()).hexdigest(),
        "environment": hashlib.sha256(environment.encode()).hexdigest(),
        "release": {key: plan.release[key] for key in ("id", "path")},
        "venv": {key: plan.venv[key] for key in ("digest", "path")},
        "programs": of_uwsgi(plan.venv, plugin),
    }
    digest = digest_of(parts)
    return Generation(
        digest=digest,
        parts=parts,
        ini=ini.replace(DIGEST, digest),
        unit=unit.replace(DIGEST, digest),
        environment=environment,
        program=plan.venv["uwsgi"],
    )


class Store(NamedTuple):
    """
    The files of one site's generations.

    lookup
        the pillar's directories
    name
        the site
    """

    lookup: dict[str, str]
    name: str

    @property
    def directory(self) -> str:
        """Where they are, but for units."""
        return f"{self.lookup['uwsgi_dir']}/{self.name}"

    @property
    def wants(self) -> str:
        """The directory of the links that enable generations."""
        return f"{self.lookup['unit_dir']}/uwsgi-{self.name}.service.wants"

    def paths(self, digest: str) -> dict[str, str]:
        """The paths of a generation, see :py:func:`_nud_uwsgi_unit.paths`."""
        return paths(self.lookup, self.name, digest)

    def digests(self, ending: str) -> list[str]:
        """The generations that have a file with an ending (``ini``, ``env``, ``json``, ``*``)."""
        return [
            os.path.basename(path).split(".")[0]
            for path in sorted_glob(self.directory, f"*.{ending}")
        ]

    def kept(self, digest: str) -> Generation:
        """
        A generation whose files are on the host.

        Raises SaltInvocationError for an invalid digest, CommandExecutionError when the generation,
        its release or its virtual environment is not there.
        """
        if not re.fullmatch(r"[0-9a-f]{12}", digest):
            raise SaltInvocationError(f"{digest!r} is not the digest of a generation")
        where = self.paths(digest)
        found = {key: read(where[key]) for key in ("unit", "ini", "env", "parts")}
        texts = {key: text.decode() for key, text in found.items() if text is not None}
        if len(texts) < len(found):
            raise CommandExecutionError(
                f"the generation {digest} of {self.name} is not on this host"
            )
        parts = json.loads(texts["parts"])
        for verb, key in (("ran", "release"), ("ran in", "venv")):
            path = parts[key]["path"]
            if not os.path.isdir(path):
                raise CommandExecutionError(
                    f"the generation {digest} {verb} {path}, which is not there any more"
                )
        return Generation(
            digest, parts, texts["ini"], texts["unit"], texts["env"], program(texts["unit"])
        )

    def files(self, generation: Generation) -> list[tuple[str, str, str, str]]:
        """Path, text, group and mode of a generation's files; root owns them all."""
        _, group = account(generation.unit)
        where = self.paths(generation.digest)
        parts = {**generation.parts, "site": self.name}
        return [
            (where["ini"], generation.ini, group, "0640"),
            (where["env"], generation.environment, "root", "0600"),
            (where["parts"], json.dumps(parts, indent=1, sort_keys=True) + "\n", "root", "0600"),
            # Last: it names the others.
            (where["unit"], generation.unit, "root", "0644"),
        ]

    def differing(self, generation: Generation) -> list[str]:
        """The paths of a generation's files that differ on the host."""
        return [
            path
            for path, text, group, mode in self.files(generation)
            if differs(path, text, "root", group, mode)
        ]

    def parts(self, digest: str) -> dict[str, Any] | None:
        """What a generation was made of, as its file says; None without that file."""
        text = read(self.paths(digest)["parts"])
        return None if text is None else json.loads(text)

    def reasons(self, generation: Generation, old: str | None) -> list[str]:
        """In what a generation differs from an older one."""
        before = self.parts(old) if old else None
        if before is None or not old:
            return []
        after = generation.parts
        reasons = [key for key in sorted(after) if before.get(key) != after[key]]
        if "environment" in reasons:
            shown = (read(self.paths(old)["env"]) or b"").decode()
            lines = [set(text.splitlines()) for text in (shown, generation.environment)]
            # Their names, and never a value.
            names = sorted({line.partition("=")[0] for line in lines[0] ^ lines[1]})
            reasons[reasons.index("environment")] = f"environment ({', '.join(names)})"
        return reasons

    def made_of(self, digest: str) -> dict[str, Any]:
        """
        What a generation was made of, and what became of its files.

        Returns ``release`` and ``venv`` (their digests; None when unknown) and ``drift``, by path
        ``is gone`` or ``was edited``.
        """
        where = self.paths(digest)
        texts = {key: read(where[key]) for key in ("parts", "ini", "env", "unit")}
        drift = {where[key]: "is gone" for key, text in texts.items() if text is None}
        try:
            parts = json.loads(texts["parts"] or b"{}")
        except ValueError:
            parts = {}
        parts.pop("site", None)
        if texts["parts"] is not None and digest_of(parts) != digest:
            drift[where["parts"]] = "was edited"
            parts = {}
        for key, part in (("ini", "ini"), ("env", "environment"), ("unit", "unit")):
            text = texts[key]
            if text is not None and parts:
                # As it was before the digest was known.
                text = text.replace(digest.encode(), DIGEST.encode())
                if hashlib.sha256(text).hexdigest() != parts[part]:
                    drift[where[key]] = "was edited"
        return {
            "release": parts.get("release", {}).get("id"),
            "venv": parts.get("venv", {}).get("digest"),
            "drift": drift,
        }

    def socket(self, digest: str) -> str | None:
        """The path that a generation listens on, by its ini."""
        ini = read(self.paths(digest)["ini"]) or b""
        found = re.search(rb"^socket *= *(\S+)$", ini, re.MULTILINE)
        return found[1].decode() if found else None

    def created(self, digest: str) -> float | None:
        """When a generation was made, in seconds since 1970; None without its files."""
        try:
            return os.stat(self.paths(digest)["parts"]).st_mtime
        except FileNotFoundError:
            return None

    @property
    def _previous(self) -> str:
        return f"{self.directory}/previous"

    def previous(self) -> str | None:
        """The generation that was enabled before the one that is."""
        try:
            return os.readlink(self._previous).removesuffix(".json")
        except FileNotFoundError:
            return None

    def remember(self, digest: str | None) -> None:
        """Note the generation that a rollback goes to; None forgets it."""
        if digest is None:
            remove(self._previous)
        elif os.path.lexists(self.paths(digest)["parts"]):
            link(self._previous, f"{digest}.json")

    def sweep(self, digest: str, others: dict[str, bool]) -> None:
        """
        Remove the files of all but the newest generations.

        digest
            a generation that stays
        others
            the other generations that systemd knows; whether each is up, and stays
        """
        known = {*others, *self.digests("json")} - {digest}
        newest = sorted(known, key=lambda other: self.created(other) or 0, reverse=True)
        previous = self.previous()
        # False sorts first.
        newest.sort(key=lambda other: other != previous)
        for other in newest[_KEEP - 1 :]:
            if not others.get(other):
                self.forget(other)

    def forget(self, digest: str) -> None:
        """Remove the files of a generation, and the link that leads from its socket to a newer one."""
        left = self.socket(digest)
        if left and os.path.islink(left):
            remove(left)
        where = self.paths(digest)
        for key in ("link", "unit", "ini", "env", "parts"):
            remove(where[key])
