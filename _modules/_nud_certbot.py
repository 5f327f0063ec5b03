"""
certbot and its lineages (its word for a certificate and its successors) under ``/etc/letsencrypt``.

Lineages whose names begin with :py:data:`PREFIX` belong to the formula.
"""

import fcntl
import os
import re
import shutil
import time

from salt.exceptions import CommandExecutionError

from _nud_durable_file import remove, write
from _nud_pem_text import ENVIRONMENT, contents, mismatch_of_texts
from _nud_program import Done
from _nud_program import run as run_program

LETSENCRYPT = "/etc/letsencrypt"
#: With it begin the names of the formula's lineages.
PREFIX = "nginx_uwsgi_django-"

# certbot/_internal/lock.py; which lock, and so which certbot, it does not say.
_ANOTHER = "Another instance of Certbot is already running"

# An authority may take minutes to look at every name.
_TIMEOUT = 600


def lineage(name: str) -> str:
    """The name of a site's lineage."""
    return f"{PREFIX}{name}"


def issued(name: str) -> bytes | None:
    """
    Read a site's certificate as certbot has it.

    name
        the site

    Returns the chain and the key; None when there is none, or certbot is just replacing them.
    """
    chain = contents(f"{LETSENCRYPT}/live/{lineage(name)}/fullchain.pem")
    key = contents(f"{LETSENCRYPT}/live/{lineage(name)}/privkey.pem")
    if chain is None or key is None or mismatch_of_texts(chain, key):
        return None
    return chain + key


def _renewal(lineage: str) -> str:
    return f"{LETSENCRYPT}/renewal/{lineage}.conf"


def parameters(lineage: str) -> dict[str, str] | None:
    """
    Read certbot's notes on how a lineage is renewed.

    lineage
        its name

    Returns a dictionary; None when there is no such lineage.
    """
    text = contents(_renewal(lineage))
    if text is None:
        return None
    return dict(re.findall(r"^(\w+) = (.*)$", text.decode("utf-8", "replace"), re.MULTILINE))


def paused(lineage: str) -> bool:
    """Whether certbot's timer passes over a lineage."""
    return (parameters(lineage) or {}).get("autorenew", "True").lower() == "false"


def lineages() -> list[str]:
    """The names of the formula's lineages on this host."""
    try:
        entries = sorted(os.listdir(f"{LETSENCRYPT}/renewal"))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [
        entry.removesuffix(".conf")
        for entry in entries
        if entry.startswith(PREFIX) and entry.endswith(".conf")
    ]


def is_running() -> bool:
    """Whether a certbot has its lock, which it takes away when it ends (certbot/_internal/lock.py)."""
    try:
        with open(f"{LETSENCRYPT}/.certbot.lock", "rb+") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def forget_half(lineage: str) -> None:
    """
    Remove a lineage that a killed certbot has not finished.

    certbot/_internal/storage.py, new_lineage(): first comes an empty file of its name, for which
    the next certbot would take another name (``LINEAGE-0001``), and its content comes last.

    lineage
        its name
    """
    if (parameters(lineage) or {}).get("fullchain"):
        return
    remove(_renewal(lineage))
    for kind in ("live", "archive"):
        path = f"{LETSENCRYPT}/{kind}/{lineage}"
        if os.path.isdir(path):
            shutil.rmtree(path)


def delete(lineage: str) -> None:
    """
    Delete a lineage with its certificates.

    lineage
        its name

    Raises CommandExecutionError with certbot's own words.
    """
    done = run(["certbot", "delete", "--non-interactive", "--cert-name", lineage], ENVIRONMENT)
    if done["retcode"]:
        raise CommandExecutionError(f"certbot delete: {done['stderr'].strip()}")


def renew(lineage: str, wanted: bool) -> None:
    """
    Let certbot's timer renew a lineage, or not.

    lineage
        its name
    wanted
        whether it is to be renewed
    """
    path = _renewal(lineage)
    text = (contents(path) or b"").decode("utf-8", "surrogateescape")
    text = re.sub(r"^autorenew = .*\n", "", text, flags=re.MULTILINE)
    if not wanted:
        # certbot/_internal/storage.py, autorenewal_is_enabled(): its own switch.
        text = text.replace("[renewalparams]\n", "[renewalparams]\nautorenew = False\n", 1)
    status = os.stat(path)
    write(
        path,
        text.encode("utf-8", "surrogateescape"),
        user=status.st_uid,
        group=status.st_gid,
        mode=f"{status.st_mode & 0o7777:04o}",
    )


def run(command: list[str], environment: dict[str, str]) -> Done:
    """
    Run certbot. Where another one is at work, its turn is awaited.

    command
        the program and its arguments
    environment
        the whole environment

    Returns ``{"retcode", "stdout", "stderr", "timed_out"}``.

    Raises CommandExecutionError when it takes too long or cannot be started.
    """
    deadline = time.monotonic() + _TIMEOUT
    while True:
        # It finishes without this process, too: its files are consistent only then.
        done = run_program(command, environment, _TIMEOUT, outlives=True)
        if done["timed_out"]:
            raise CommandExecutionError(f"certbot had not ended after {_TIMEOUT} s")
        # The one of its timer, or of a run that was killed: it ends by itself.
        if _ANOTHER not in done["stderr"] or time.monotonic() > deadline:
            return done
        time.sleep(1)
