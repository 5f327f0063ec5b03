"""
The sites' certificates: what nginx is to read, where it comes from, and until when it is good.

A certificate is a pair of files that somebody else keeps (``tls:certificate`` and ``tls:key`` as
paths), the pillar's own text, or the work of an ACME authority, asked by certbot with files that
nginx serves (``tls:acme``).

Where it is not somebody else's, nginx reads the chain and the key from one file beside the site's
own, ``sites-available/SITE.pem``, which root alone can read.  One file, so that a host that is
reset at any instant never finds a key beside another key's certificate: nginx would not start.
It is a part of the tree that :py:mod:`nginx_tree <_modules.nginx_tree>` lets nginx judge before it
puts it in place.  certbot's own files (lineages under ``/etc/letsencrypt``) are copied into it, by
a run or, when certbot's timer has renewed one between runs, by a deploy hook.

.. versionadded:: 0.1.0
"""

import glob
import os
import shlex
import shutil
import time
from typing import Any

from salt.exceptions import CommandExecutionError

from _nud import certbot, durable_file, pem_text

__virtualname__ = "site_certificate"


# What nginx_tree knows the formula's files by.
_MARKER = "# Managed by the Salt formula nginx_uwsgi_django"
_PLACEHOLDER = "self-signed until the first certificate arrives"


_DROP_IN = "certbot.service.d/nginx_uwsgi_django.conf"


# Put in, tested, and taken out again when nginx refuses.  The old file is a hard link: it comes
# back as it was.
_HOOK = """\
#!/bin/sh
{marker}.
# Called by certbot, with a site's name, when it has renewed the site's certificate.
set -eu
export PATH={path}
umask 077
cd {folder}
site=$1
# The site has gone, or has its certificate from elsewhere now.
head -n 1 "$site.pem" 2>/dev/null | grep -qE ', (ACME|{placeholder})\\)' || exit 0
rm -f ".$site.pem.durable-"*
new=".$site.pem.durable-new" old=".$site.pem.durable-old"
trap 'rm -f "$new" "$old"' EXIT
printf '%s\\n' "{marker} (site $site, ACME)." > "$new"
cat "$RENEWED_LINEAGE/fullchain.pem" "$RENEWED_LINEAGE/privkey.pem" >> "$new"
sync "$new"
ln "$site.pem" "$old"
mv "$new" "$site.pem"
sync .
systemctl --quiet is-active {service} || exit 0
if ! words=$(nginx -t -q 2>&1); then
    mv "$old" "$site.pem"
    # certbot ends with 0 for all that, and its timer's is quiet.
    told="site $site: nginx refuses the certificate that certbot has renewed, and serves the former one"
    printf '%s: %s\\n' "$told" "$words" | tr '\\n' ' ' |
        logger --priority daemon.err --tag nginx_uwsgi_django
    printf '%s\\n' "$words" >&2
    exit 1
fi
systemctl reload {service}
"""


def __virtual__() -> str:
    return __virtualname__


def _settings() -> dict[str, Any]:
    return __salt__["site_pillar.settings"]()


def _site(name: str) -> dict[str, Any]:
    return __salt__["site_pillar.site"](name)


def _names(site: dict[str, Any]) -> list[str]:
    """All names that are asked for by HTTPS: those that are redirected are, too."""
    return [*site["server_names"], *site["redirect_from"]]


# subjectAltName, 2.5.29.17 (RFC 5280, 4.2.1.6), as DER has it.
_ALTERNATIVES = b"\x55\x1d\x11"


def _own_names(own: str) -> list[str]:
    """The names that a certificate is for, without a process for it; addresses are left out."""
    try:
        for tag, extensions in pem_text.fields_of(own):
            if tag != 0xA3:
                continue
            for _, extension in pem_text.elements(pem_text.elements(extensions)[0][1]):
                parts = pem_text.elements(extension)
                if parts[0][1] == _ALTERNATIVES:
                    names = pem_text.elements(pem_text.elements(parts[-1][1])[0][1])
                    return [text.decode("ascii").lower() for kind, text in names if kind == 0x82]
    except (IndexError, ValueError) as error:
        raise CommandExecutionError(f"this is not a certificate: {error}") from error
    return []


# --- what nginx is to read ---------------------------------------------------------------------
def _head(name: str, source: str) -> bytes:
    return f"{_MARKER} (site {name}, {source}).\n".encode()


def _lines(text: str | bytes) -> bytes:
    """With the line ends that PEM has, whatever the pillar was written on."""
    contents = text.encode() if isinstance(text, str) else text
    return contents.replace(b"\r\n", b"\n").strip(b"\r\n") + b"\n"


def _issued(name: str) -> bytes | None:
    """What certbot has: chain and key; None when it has none, or is just replacing them."""
    found = certbot.issued(name)
    # As the deploy hook writes it, byte by byte.
    return None if found is None else _head(name, "ACME") + found


def _self_signed(name: str, names: list[str]) -> bytes:
    """A certificate that nobody trusts, so that nginx has one to start with."""
    common = names[0] if len(names[0]) <= 64 else name
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    words += ["-days", "3650", "-subj", f"/CN={common}"]
    words += ["-addext", "subjectAltName=" + ",".join(f"DNS:{word}" for word in names)]
    # To the pipe: neither a file nor the list of processes ever has the key.
    pem = pem_text.openssl(*words, "-keyout", "/dev/stdout", "-out", "/dev/stdout")
    return _head(name, _PLACEHOLDER) + pem.encode()


def bundle(name: str, current: bytes | None) -> bytes | None:
    """
    What is to be in a site's certificate file.

    name
        the site
    current
        what is there now

    Returns the contents; None for a site without TLS, or whose files somebody else keeps.

    Raises CommandExecutionError when a self-signed one is needed and openssl does not make it.

    CLI Example:

    .. code-block:: bash

        salt '*' site_certificate.bundle mysite null
    """
    site = _site(name)
    tls = site["tls"]
    if tls["source"] == "pillar":
        return _head(name, "the pillar") + _lines(tls["certificate"]) + _lines(tls["key"])
    if tls["source"] != "acme":
        return None
    issued = _issued(name)
    if issued is not None:
        return issued
    ours = current is not None and current.startswith(
        (_head(name, "ACME"), _head(name, _PLACEHOLDER))
    )
    return current if ours else _self_signed(name, _names(site))


def trusted(contents: bytes) -> bool:
    """
    Whether a certificate file holds more than the self-signed placeholder.

    contents
        of the file, as :py:func:`bundle` returns them

    CLI Example:

    .. code-block:: bash

        salt '*' site_certificate.trusted "$(cat /etc/nginx/sites-available/mysite.pem)"
    """
    return f", {_PLACEHOLDER})".encode() not in contents.split(b"\n", 1)[0]


def awaited(name: str) -> bool:
    """
    Whether a site still has the self-signed placeholder in place of its first certificate.

    name
        the site

    Returns False for a site whose certificate does not come by ACME, too.

    Raises SaltInvocationError when the pillar does not have the site.

    CLI Example:

    .. code-block:: bash

        salt '*' site_certificate.awaited mysite
    """
    if _site(name)["tls"]["source"] != "acme":
        return False
    folder = f"{_settings()['lookup']['nginx_dir']}/sites-available"
    contents = pem_text.contents(f"{folder}/{name}.pem")
    return contents is None or not trusted(contents)


def webroot() -> str:
    """
    The directory that nginx serves below ``/.well-known/acme-challenge/``.

    CLI Example:

    .. code-block:: bash

        salt '*' site_certificate.webroot
    """
    return os.path.join(_settings()["lookup"]["state_dir"], "acme", "webroot")


def report() -> dict[str, dict[str, Any]]:
    """
    The certificates that the sites serve, and how long they are good: for a look at a whole fleet.

    Returns a mapping by site (of those with TLS): ``source`` (acme, pillar or path), ``path``,
    ``names``, ``issuer``, ``self_signed``, ``not_after`` (UTC), ``days_left`` (negative: it has
    ended), ``missing_names`` (names of the site's that it is not for); or ``error`` when there is none.

    Raises CommandExecutionError when the pillar is not valid.

    CLI Example:

    .. code-block:: bash

        salt '*' site_certificate.report
    """
    answer: dict[str, dict[str, Any]] = {}
    for name, (site, path) in _served().items():
        answer[name] = {"source": site["tls"]["source"], "path": path}
        contents = pem_text.contents(path)
        try:
            if contents is None:
                raise CommandExecutionError("there is no such file")
            facts = pem_text.facts_of(contents)
        except CommandExecutionError as error:
            answer[name]["error"] = f"{error}"
            continue
        keys = ("names", "issuer", "self_signed", "not_after", "days_left")
        answer[name].update({key: facts[key] for key in keys})
        answer[name]["missing_names"] = [
            word for word in _names(site) if not _covered(word, facts["names"])
        ]
    return answer


def _served() -> dict[str, tuple[dict[str, Any], str]]:
    """The sites with TLS, each with the certificate file that nginx reads for it."""
    settings = _settings()
    found = {}
    for name, site in settings["sites"].items():
        if site["absent"] or not site["tls"]["source"]:
            continue
        path = site["tls"]["certificate"]
        if site["tls"]["source"] != "path":
            path = f"{settings['lookup']['nginx_dir']}/sites-available/{name}.pem"
        found[name] = (site, path)
    return found


def ends() -> dict[str, dict[str, Any]]:
    """
    When the certificates that the sites serve end: what :py:func:`report` says of that, without a
    process for each.

    Returns a mapping by site (of those with TLS): ``not_after`` (UTC), ``days_left`` (negative: it
    has ended) and ``placeholder`` (the self-signed one until the first arrives); or ``error``.

    Raises CommandExecutionError when the pillar is not valid.

    CLI Example:

    .. code-block:: bash

        salt '*' site_certificate.ends
    """
    answer: dict[str, dict[str, Any]] = {}
    for name, (_, path) in _served().items():
        contents = pem_text.contents(path)
        own = contents and pem_text.first(contents)
        try:
            if contents is None or not own:
                raise CommandExecutionError(f"there is no certificate in {path}")
            answer[name] = {
                **pem_text.end(pem_text.validity_of(own)[1]),
                "placeholder": not trusted(contents),
            }
        except CommandExecutionError as error:
            answer[name] = {"error": f"{error}"}
    return answer


def flaws(name: str) -> list[str]:
    """
    Why browsers refuse a site's certificate, as far as the certificate itself says. The placeholder
    that ACME's first certificate replaces is not looked at.

    name
        the site

    Returns a list of sentences; empty for a site without TLS, and while the file is not there.

    Raises SaltInvocationError when the pillar does not have the site.

    CLI Example:

    .. code-block:: bash

        salt '*' site_certificate.flaws mysite
    """
    own = _own(name)
    if own is None:
        return []
    try:
        since, until = pem_text.validity_of(own)
        names = _own_names(own)
    except CommandExecutionError as error:
        return [f"{name}: its certificate: {error}"]
    found = []
    if until < time.time():
        found.append(f"{name}: its certificate ended at {pem_text.end(until)['not_after']}")
    if since > time.time():
        found.append(f"{name}: its certificate is good from {pem_text.end(since)['not_after']} on")
    missing = [word for word in _names(_site(name)) if not _covered(word, names)]
    if missing:
        found.append(
            f"{name}: its certificate is for {', '.join(names) or 'no name'}, and not for "
            f"{', '.join(missing)}"
        )
    return found


def refused(name: str) -> bool:
    """
    Whether browsers surely refuse a site's certificate: it has ended, is not good yet, or is for
    none of ``server_names``.

    name
        the site

    Returns False for a site without TLS, and while the file is not there.

    Raises SaltInvocationError when the pillar does not have the site.

    CLI Example:

    .. code-block:: bash

        salt '*' site_certificate.refused mysite
    """
    own = _own(name)
    if own is None:
        return False
    try:
        since, until = pem_text.validity_of(own)
        names = _own_names(own)
    except CommandExecutionError:
        return True
    covered = any(_covered(word, names) for word in _site(name)["server_names"])
    return not since <= time.time() <= until or not covered


def _own(name: str) -> str | None:
    """The PEM text of a site's certificate, as nginx reads it or will."""
    tls = _site(name)["tls"]
    if tls["source"] in ("path", "pillar"):
        contents = pem_text.contents(tls["certificate"])
    elif tls["source"] == "acme" and not awaited(name):
        contents = pem_text.contents(
            f"{_settings()['lookup']['nginx_dir']}/sites-available/{name}.pem"
        )
    else:
        contents = None
    return pem_text.first(contents) if contents else None


def withheld(name: str) -> str | None:
    """
    Whether certbot has renewed a site's certificate and nginx does not serve the new one, because
    the deploy hook failed.

    name
        the site

    Returns a sentence, or None.

    Raises SaltInvocationError when the pillar does not have the site.

    CLI Example:

    .. code-block:: bash

        salt '*' site_certificate.withheld mysite
    """
    # The hook of one that is at work may still be to come.
    if _site(name)["tls"]["source"] != "acme" or certbot.is_running():
        return None
    issued = _issued(name)
    served = pem_text.contents(f"{_settings()['lookup']['nginx_dir']}/sites-available/{name}.pem")
    if issued is None or served is None or issued == served:
        return None
    return (
        f"{name}: certbot has renewed its certificate, and nginx serves the former one, because the "
        "deploy hook failed (journalctl -t nginx_uwsgi_django); the next run tries again"
    )


def _covered(word: str, names: list[str]) -> bool:
    """Whether one of a certificate's names stands for a server name (RFC 6125, 6.4.3)."""
    lower = word.lower()
    if lower == "_" or lower.endswith(".*"):
        return True  # no certificate can be for all of these
    if lower.startswith("."):
        return lower[1:] in names and f"*{lower}" in names
    return lower in names or f"*.{lower.partition('.')[2]}" in names


# --- ACME --------------------------------------------------------------------------------------
def _hook_path() -> str:
    return os.path.join(_settings()["lookup"]["state_dir"], "acme", "deploy")


def _drop_in() -> str:
    return os.path.join(_settings()["lookup"]["unit_dir"], _DROP_IN)


def _hook_text() -> str:
    lookup = _settings()["lookup"]
    return _HOOK.format(
        marker=_MARKER,
        placeholder=_PLACEHOLDER,
        path=pem_text.ENVIRONMENT["PATH"],
        folder=shlex.quote(f"{lookup['nginx_dir']}/sites-available"),
        service=f"{lookup['nginx_service']}.service",
    )


def _drop_in_text() -> str | None:
    ca = _settings()["acme"]["ca"]
    return f"{_MARKER}.\n[Service]\nEnvironment=REQUESTS_CA_BUNDLE={ca}\n" if ca else None


def _files_are_right() -> bool:
    text = _drop_in_text()
    wrong = os.path.lexists(_drop_in()) if text is None else durable_file.differs(_drop_in(), text)
    return not wrong and not durable_file.differs(_hook_path(), _hook_text(), mode="0755")


def _write_files() -> None:
    durable_file.directory(webroot())
    durable_file.write(_hook_path(), _hook_text(), mode="0755")
    text = _drop_in_text()
    if text is None:
        durable_file.remove(_drop_in())
    else:
        durable_file.directory(os.path.dirname(_drop_in()))
        durable_file.write(_drop_in(), text)
    __salt__["systemd_unit.daemon_reload"]()


def diff(name: str) -> dict[str, str]:
    """
    What is to be done so that a site has, and keeps, the certificate that it asks an authority for.

    name
        the site

    Returns a dictionary of reasons, empty when all is right or the site asks for none: ``request``
    (a certificate is to be asked for) and ``prepare`` (the deploy hook and what certbot's timer
    reads are not right).  No process but openssl is started.

    CLI Example:

    .. code-block:: bash

        salt '*' site_certificate.diff mysite
    """
    site = _site(name)
    if site["absent"] or site["tls"]["source"] != "acme":
        return {}
    found = {}
    reason = _why_request(name, site)
    if reason:
        found["request"] = reason
    if not _files_are_right() or not os.path.isdir(webroot()):
        found["prepare"] = "what certbot's timer needs is not in place"
    elif certbot.paused(certbot.lineage(name)):
        found["prepare"] = "certbot's timer does not renew it"
    elif _half_handed_over(name):
        found["prepare"] = "a hook that was killed has left files"
    return found


def _half_handed_over(name: str) -> list[str]:
    """What a deploy hook that was killed has left beside a site's certificate."""
    folder = os.path.join(_settings()["lookup"]["nginx_dir"], "sites-available")
    left = glob.glob(f"{glob.escape(folder)}/.{name}.pem.durable-*")
    # The files of one that is at work are its own.
    return [] if left and certbot.is_running() else left


def _why_request(name: str, site: dict[str, Any]) -> str | None:
    lineage = certbot.lineage(name)
    parameters = certbot.parameters(lineage)
    contents = _issued(name)
    if parameters is None or contents is None:
        return "there is no certificate yet"
    facts = pem_text.facts_of(contents)
    if set(facts["names"]) != {word.lower() for word in _names(site)}:
        return f"the one there is is for {', '.join(facts['names'])}"
    directory = _settings()["acme"]["directory"]
    if parameters.get("server") != directory:
        return f"the one there is comes from {parameters.get('server')}"
    # certbot's timer renews at 30 days of 90, newer ones at a third: here it did not.
    if facts["left"] < min(facts["lifetime"] / 3, 29 * 86400):
        return f"the one there is ends at {facts['not_after']}"
    if parameters.get("renew_hook") != f"{_hook_path()} {name}":
        return "the one there is is renewed for somebody else"
    return None


def prepare(name: str) -> None:
    """
    Put in place what a renewal by certbot's own timer needs: the hook that hands the certificate
    to nginx, the authority's certificate where the pillar names one, and a lineage that is renewed.

    name
        the site

    CLI Example:

    .. code-block:: bash

        salt '*' site_certificate.prepare mysite
    """
    _write_files()
    lineage = certbot.lineage(name)
    if certbot.paused(lineage):
        retire(lineage, "resume")
    for path in _half_handed_over(name):
        durable_file.remove(path)


def request(name: str) -> str:
    """
    Ask the authority for a site's certificate; nginx has to be serving the site by plain HTTP.

    name
        the site

    Returns what was got, in one line.

    Raises CommandExecutionError with certbot's own words when there is none.

    CLI Example:

    .. code-block:: bash

        salt '*' site_certificate.request mysite
    """
    site, acme = _site(name), _settings()["acme"]
    if not acme["terms_agreed"]:
        raise CommandExecutionError("acme:terms_agreed is not true")
    program = shutil.which("certbot", path=pem_text.ENVIRONMENT["PATH"])
    if program is None:
        raise CommandExecutionError("certbot is not installed")
    _write_files()
    certbot.forget_half(certbot.lineage(name))
    command = [program, "certonly", "--non-interactive", "--webroot", "--webroot-path", webroot()]
    command += ["--cert-name", certbot.lineage(name), "--server", acme["directory"], "--agree-tos"]
    command += ["--key-type", "ecdsa", "--deploy-hook", f"{_hook_path()} {name}"]
    # That it is due has been decided; certbot's own idea of that may be another.
    command += ["--force-renewal", "--renew-with-new-domains"]
    if acme["email"]:
        command += ["--email", acme["email"], "--no-eff-email"]
    else:
        command.append("--register-unsafely-without-email")
    for word in _names(site):
        command += ["--domain", word.lower()]
    environment = dict(pem_text.ENVIRONMENT)
    if acme["ca"]:
        environment["REQUESTS_CA_BUNDLE"] = acme["ca"]
    done = certbot.run(command, environment)
    if done["retcode"]:
        lines = (done["stdout"] + done["stderr"]).splitlines()
        told = "\n".join(line for line in lines if line.strip())
        raise CommandExecutionError(f"certbot ended with {done['retcode']}:\n{told}")
    still = diff(name)
    if still:
        raise CommandExecutionError(f"certbot ended well, but {'; '.join(still.values())}")
    return str(pem_text.describe(_issued(name)))


def leftovers(everything: bool = False) -> dict[str, str]:
    """
    The formula's lineages that no site of the pillar asks for, and what is to become of them.

    everything
        as if no site asked for one

    Returns a mapping from a lineage to ``delete`` (where the pillar gives up the data of what goes:
    an authority does not issue as many as one likes) or ``pause`` (it stays, and is no longer
    renewed).  One of a site that the pillar has lost without ``purge`` is none: nginx serves it.

    CLI Example:

    .. code-block:: bash

        salt '*' site_certificate.leftovers
    """
    settings = _settings()
    found = {}
    for lineage in certbot.lineages():
        site = settings["sites"].get(lineage.removeprefix(certbot.PREFIX))
        gone = everything or (site["absent"] if site else settings["purge"])
        if not gone and (site is None or site["tls"]["source"] == "acme"):
            continue
        if gone and (site is not None) and settings["clean"]["data"]:
            found[lineage] = "delete"
        elif not certbot.paused(lineage):
            found[lineage] = "pause"
    return found


def retire(lineage: str, how: str) -> None:
    """
    Delete a lineage of the formula's, let it be without being renewed, or have it renewed again.

    lineage
        its name, as :py:func:`leftovers` gives it
    how
        ``delete``, ``pause`` or ``resume``

    Raises CommandExecutionError when the lineage is not the formula's, or with certbot's words.

    CLI Example:

    .. code-block:: bash

        salt '*' site_certificate.retire nginx_uwsgi_django-mysite pause
    """
    if lineage not in certbot.lineages():
        raise CommandExecutionError(f"{lineage} is no certificate of the formula's")
    if how == "delete":
        certbot.delete(lineage)
    else:
        certbot.renew(lineage, wanted=how == "resume")


def leftover_files() -> list[str]:
    """
    What the formula wrote for certbot beside the certificates: the hook, the webroot, the drop-in.

    Returns the paths that are there.

    CLI Example:

    .. code-block:: bash

        salt '*' site_certificate.leftover_files
    """
    return [path for path in (_drop_in(), os.path.dirname(_hook_path())) if os.path.lexists(path)]


def remove_files() -> None:
    """
    Remove them.

    CLI Example:

    .. code-block:: bash

        salt '*' site_certificate.remove_files
    """
    if durable_file.remove(_drop_in()):
        __salt__["systemd_unit.daemon_reload"]()
    folder = os.path.dirname(_hook_path())
    if os.path.isdir(folder):
        shutil.rmtree(folder)
