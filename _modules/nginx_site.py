"""
What stands in nginx's files for the pillar's sites: the templates, and what they are given.

Nothing here asks nginx or writes anything of its: :py:mod:`nginx_tree <_modules.nginx_tree>` puts
these texts in place, all at once, after nginx has judged them.

.. versionadded:: 0.1.0
"""

import logging
import os
import re
from collections.abc import Container
from typing import Any

import jinja2
import jinja2.bccache
import jinja2.sandbox
from salt.exceptions import CommandExecutionError, SaltInvocationError

from _nud import cache, durable_file, nginx_language, nginx_program, takeover_record

__virtualname__ = "nginx_site"

log = logging.getLogger(__name__)

# By these words nginx_tree knows a file of the formula's.
_MARKER = "Managed by the Salt formula nginx_uwsgi_django"


def __virtual__() -> str:
    return __virtualname__


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


class _Compiled(jinja2.FileSystemBytecodeCache):
    """
    What Jinja has compiled, which takes a hundred times as long as rendering. Of another text, or
    by another Jinja, it is not taken.
    """

    def dump_bytecode(self, bucket: jinja2.bccache.Bucket) -> None:
        """Keep it. A disk that cannot costs the time to compile again, and no run."""
        try:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            super().dump_bytecode(bucket)
        except OSError as error:
            log.warning("a compiled template is not kept: %s", error)


class _Templates:
    """
    The templates on the fileserver; each is asked for once.

    Those that stand for all sites are asked for by their hash.  Which sites have one of their own is
    asked once for all of them, of the fileserver's list of files: each site by itself would be three
    questions to the master.  That list is up to 20 seconds old (``fileserver_list_cache_time``), as it
    is for the SLS files of a run.
    """

    _prefix = "nginx_uwsgi_django/files"
    # It is always there: a list without it is none of the formula's files.
    _ours = f"{_prefix}/default/site.conf.jinja"

    def __init__(self, saltenv: str, version: str | None = None) -> None:
        self.saltenv = saltenv
        self._version = _numbers(version) if version else ()
        self.texts: dict[str, str | None] = {}
        self._files: set[str] | None = None
        self.environment = jinja2.sandbox.SandboxedEnvironment(
            loader=jinja2.FunctionLoader(self._load),
            bytecode_cache=_Compiled(
                os.path.join(__opts__["cachedir"], "nginx_uwsgi_django", "templates")
            ),
            undefined=jinja2.StrictUndefined,
            autoescape=False,
            keep_trailing_newline=True,
            trim_blocks=False,
        )
        quote = nginx_language.quote
        self.environment.filters["nginx"] = quote
        self.environment.filters["nginx_variables"] = lambda value: quote(value, variables=True)
        self.environment.filters["nginx_words"] = _quote_words
        self.environment.filters["beyond_root"] = _beyond_root

    def version(self) -> tuple[int, ...]:
        """
        The version that is written for: the installed nginx's where no other was given, asked once,
        and only where the words depend on it.
        """
        if not self._version:
            self._version = _numbers(nginx_program.version())
        return self._version

    def http2_directive(self) -> bool:
        """Whether that nginx has ``http2 on`` (1.25.1), not only a ``listen``'s http2."""
        return self.version() >= (1, 25, 1)

    def render(self, *names: str, **given: Any) -> tuple[str, str]:
        """The first of some templates that is there, rendered, and its address."""
        source = self._find(*names)
        try:
            body = self.environment.get_template(source).render(**given)
        except jinja2.TemplateError as error:
            line = getattr(error, "lineno", None)
            # A part that is included names itself.
            part = getattr(error, "name", None)
            place = f"{source}, {part}" if part and part != source else source
            raise CommandExecutionError(
                f"{place}, line {line}: {error}" if line else f"{place}: {error}"
            ) from error
        except CommandExecutionError as error:
            raise CommandExecutionError(f"{source}: {error}") from error
        return body.lstrip("\n").rstrip("\n") + "\n", source

    def _listed(self, path: str) -> bool:
        """Whether a template may be there; where no list is to be had, each of them may."""
        if self._files is None:
            found = __salt__["cp.list_master"](saltenv=self.saltenv, prefix=self._prefix)
            self._files = set(found or [])
        return path in self._files or self._ours not in self._files

    def _find(self, *names: str) -> str:
        """
        A template's address: the first of this minion's, its family's, ours.

        Of several names the last one is for all sites, and those before it are a site's own.
        """
        places = [__grains__.get("id"), __grains__.get("os_family"), "default"]
        candidates = [
            (f"{self._prefix}/{place}/{name}.conf.jinja", name != names[-1])
            for place in places
            # An id goes into a path: it must not lead out of the directory.
            if isinstance(place, str) and re.fullmatch(r"[\w.-]+", place) and place.strip(".")
            for name in names
        ]
        for path, own in candidates:
            if (not own or self._listed(path)) and self._text(path) is not None:
                return f"salt://{path}"
        raise CommandExecutionError(
            f"no template {names[0]}: none of "
            f"{', '.join(f'salt://{path}' for path, _ in candidates)}"
        )

    def _load(self, name: str) -> str | None:
        """For Jinja: a template by its address, and a part that one includes, found as those are."""
        address = name if "://" in name else self._find(name.removesuffix(".conf.jinja"))
        return self._text(address.removeprefix("salt://"))

    def _text(self, path: str) -> str | None:
        if path not in self.texts:
            url, text = f"salt://{path}", None
            if __salt__["cp.hash_file"](url, saltenv=self.saltenv):
                text = __salt__["cp.get_file_str"](url, saltenv=self.saltenv)
                if not isinstance(text, str):
                    raise CommandExecutionError(f"{url} could not be read")
            self.texts[path] = text
        return self.texts[path]


def _templates(saltenv: str, version: str | None = None) -> _Templates:
    """The same ones for all that is rendered in one survey of the host."""
    return cache.once(("templates", saltenv, version), lambda: _Templates(saltenv, version))


def _quote_words(value: Any) -> str:
    """Several parameters: a list of them, or a text with blanks between them."""
    if isinstance(value, (list, tuple)):
        words = [str(word) if isinstance(word, int) else word for word in value]
    elif isinstance(value, str):
        words = value.split()
    else:
        words = [value]
    if not words:
        raise CommandExecutionError("an nginx directive is left without a parameter")
    return " ".join(map(nginx_language.quote, words))


def _beyond_root(path: str) -> str:
    """
    The word by which ``disable_symlinks`` leaves out the part of a path that nobody but root can
    lead elsewhere, with a space before it; empty where there is none. To look at every directory
    from the root on takes nginx as long as the rest of a small file's answer.
    """
    safe = "/"
    for name in path.strip("/").split("/"):
        try:
            there = os.stat(safe)
        except OSError:
            break
        if there.st_uid or there.st_mode & 0o022:
            break
        safe = os.path.join(safe, name)
    return "" if safe == "/" else " " + nginx_language.quote(f"from={safe}")


def _directory() -> str:
    return str(__salt__["site_pillar.settings"]()["lookup"]["nginx_dir"])


def _htpasswd_path(name: str) -> str:
    return f"sites-available/{name}.htpasswd"


def _static(name: str, site: dict[str, Any]) -> dict[str, str] | None:
    """
    The directory of collected static files, where there are any.

    A site that collects none may serve its static files itself: a location without files would
    take them away from it.
    """
    static = site["project"]["static"]
    if not static["collect"]:
        return None
    root = __salt__["django_release.directories"](name)["static"]
    try:
        with os.scandir(root) as entries:
            if next(entries, None) is None:
                return None
    except (FileNotFoundError, NotADirectoryError):
        return None
    return {"url": static["url"].rstrip("/") + "/", "root": root.rstrip("/") + "/"}


def _given(name: str, site: dict[str, Any]) -> dict[str, Any]:
    settings = __salt__["site_pillar.settings"]()
    nginx = settings["nginx"]
    return {
        "site": site,
        "static": _static(name, site),
        "nginx": nginx,
        "health": nginx["health"],
        "htpasswd": f"{settings['lookup']['nginx_dir']}/{_htpasswd_path(name)}",
        "moved": _moved(site),
        # nginx's variables: a dash would end their names; the contract refuses a second such name.
        "variable": f"site_{name.replace('-', '_')}",
    }


def _moved(site: dict[str, Any]) -> dict[str, str] | None:
    """Where requests for the site's other names are sent to: by plain HTTP, and by HTTPS."""
    if not site["redirect_from"]:
        return None
    first, tls = site["server_names"][0], site["tls"]
    # Behind a load balancer nobody knows which port it has.
    number = str(site["listen"][0]).split()[0].rpartition(":")[2]
    port = "" if number == "80" or site["load_balancer"] else f":{number}"
    return {
        "plain": f"{first}{port}",
        "encrypted": f"{first}{tls['port']}" if tls and not site["load_balancer"] else first,
    }


def _refused(
    sites: dict[str, dict[str, Any]], defaulted: list[list[Any]], encrypted: bool = False
) -> list[str]:
    """Where nobody is the default server yet: the addresses of all sites, each once."""
    found: dict[tuple[str, str], str] = {}
    taken = {(str(address), str(port)) for address, port in defaulted}
    for site in sites.values():
        for listen in site["tls"]["listen"] if encrypted else site["listen"]:
            word, _, flag = str(listen).partition(" ")
            address, _, port = word.rpartition(":")
            key = ("*" if address in ("", "0.0.0.0") else address.lower(), port)
            if flag or "_" in site["server_names"]:
                taken.add(key)
            found.setdefault(key, word)
    return [word for key, word in found.items() if key not in taken]


def _refused_tls(
    sites: dict[str, dict[str, Any]],
    health: dict[str, Any] | None,
    defaulted: list[list[Any]],
    templates: _Templates,
) -> dict[str, Any] | None:
    """What the template is told of the server that refuses unknown names where TLS is spoken."""
    sites = {name: site for name, site in sites.items() if site["tls"]["source"]}
    listen = _refused(sites, defaulted, encrypted=True)
    if not listen:
        return None
    balanced = [name for name, site in sites.items() if site["load_balancer"]]
    certificate, key = None, None
    # A load balancer may name nobody in the handshake (SNI), and means a site all the same: by the
    # request's Host, or by the path of its question.  ssl_reject_handshake: nginx 1.19.4.
    if health or balanced or templates.version() < (1, 19, 4):
        asked = [health["site"]] if health and health["site"] in sites else []
        name = [*asked, *balanced, *sites][0]
        certificate, key = _pair(name, sites[name])
    return {
        "listen": listen,
        "http2_directive": templates.http2_directive(),
        "certificate": certificate,
        "key": key,
    }


def _headed(text: str, what: str) -> str:
    return f"# {_MARKER} ({what}).\n# Changes made here are overwritten.\n{text}"


def _pair(name: str, site: dict[str, Any]) -> tuple[str, str]:
    """The files of a site's certificate and of its key."""
    if site["tls"]["source"] == "path":
        return site["tls"]["certificate"], site["tls"]["key"]
    return (f"{_directory()}/sites-available/{name}.pem",) * 2


def _certificate(name: str, site: dict[str, Any]) -> tuple[str, bytes | None]:
    """The file that holds a site's certificate and key, and what is to be in it: see there."""
    path = f"sites-available/{name}.pem"
    if not site["tls"]["source"]:
        return path, None
    current = durable_file.read(f"{_directory()}/{path}")
    return path, __salt__["site_certificate.bundle"](name, current)


def _tls(
    name: str,
    site: dict[str, Any],
    templates: _Templates,
    bundle: bytes | None,
    served: dict[str, Any] | None,
) -> dict[str, Any] | None:
    """What a template is told of TLS: paths, and no key."""
    tls = site["tls"]
    if not tls["source"]:
        return None
    certificate, key = _pair(name, site)
    # Not to a certificate that no browser takes.
    redirect = bundle is None or __salt__["site_certificate.trusted"](bundle)
    if served and not redirect:
        certificate, key, redirect = served["certificate"], served["key"], served["redirect"]
    port = str(tls["listen"][0]).split()[0].rpartition(":")[2]
    return {
        "listen": tls["listen"],
        "certificate": certificate,
        "key": key,
        "http2_directive": templates.http2_directive(),
        "redirect": tls["redirect"] and redirect,
        "port": "" if port == "443" else f":{port}",
        "webroot": __salt__["site_certificate.webroot"]() if tls["source"] == "acme" else None,
    }


def _rendered(
    name: str,
    templates: _Templates,
    bundle: bytes | None,
    served: dict[str, Any] | None = None,
) -> str:
    asked = __salt__["site_pillar.site"](name)
    hsts = asked["tls"]["hsts"]
    site = {
        **asked,
        "tls": _tls(name, asked, templates, bundle, served),
        "headers": dict(asked["headers"]),
    }
    # RFC 6797, 7.2: no promise where plain HTTP is answered, nor (8.4) with a certificate that no
    # browser lets a visitor pass for it.  One header list for a whole server:
    # a location with an add_header of its own would drop the server's.
    promised = {header.lower() for header in site["headers"]} & {"strict-transport-security"}
    lasting = bundle is None or __salt__["site_certificate.trusted"](bundle)
    wanted = site["tls"] and site["tls"]["redirect"] and hsts and lasting and not promised
    if wanted and not __salt__["site_certificate.refused"](name):
        site["headers"]["Strict-Transport-Security"] = f"max-age={hsts}"
    try:
        body, source = templates.render(name, "site", **_given(name, site))
    except CommandExecutionError as error:
        raise CommandExecutionError(f"sites:{name}: {error}") from error
    return _headed(body, f"site {name}, {source}")


def render(name: str, saltenv: str = "base") -> str:
    """
    The configuration file of one site, as the pillar wants it.

    name
        the site's name
    saltenv
        the fileserver's environment to take the template from

    Returns the text of ``sites-available/NAME.conf``.

    Raises CommandExecutionError when the template is missing, uses a name that it is not given, or
    a value cannot be written in nginx's language.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_site.render mysite
    """
    site = __salt__["site_pillar.site"](name)
    return _rendered(name, _templates(saltenv), _certificate(name, site)[1])


def files(
    saltenv: str = "base",
    version: str | None = None,
    held: Container[str] = (),
    served: dict[str, dict[str, Any]] | None = None,
) -> dict[str, dict[str, Any]]:
    """
    The files of all sites that are to be there.

    saltenv
        the fileserver's environment to take the templates from
    version
        of the nginx that they are for; by default the installed one's
    held
        the sites whose files stay as they are, and are left out
    served
        by site the ``certificate`` and ``key`` that nginx has for its names, and whether it
        redirects plain HTTP (``redirect``): they stay until the authority has sent the first one

    Returns by the path in nginx's tree: ``text``; ``secret``, whether no diff may show it; and
    where it is not 0644 of root, ``mode`` and ``group``.

    Raises CommandExecutionError as :py:func:`render` does.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_site.files
    """
    templates = _templates(saltenv, version)
    found: dict[str, dict[str, Any]] = {}
    settings = __salt__["site_pillar.settings"]()
    for name, site in settings["sites"].items():
        if not site["absent"] and name not in held:
            if site["basic_auth"]:
                # The workers read it, at each request.
                found[_htpasswd_path(name)] = {
                    "text": _headed(
                        "".join(
                            f"{user}:{hashed}\n"
                            for user, hashed in site["basic_auth"]["users"].items()
                        ),
                        f"the users of the site {name}",
                    ),
                    "secret": True,
                    "mode": "0640",
                    "group": settings["nginx"]["group"],
                }
            path, bundle = _certificate(name, site)
            if bundle is not None:
                found[path] = {"text": bundle.decode(), "secret": True, "mode": "0600"}
            found[f"sites-available/{name}.conf"] = {
                "text": _rendered(name, templates, bundle, (served or {}).get(name))
            }
    return found


def _as_it_is(site: dict[str, Any], stays: dict[str, Any]) -> dict[str, Any]:
    """A site of the pillar, with what the http level is made of taken from its file that stays."""
    return {
        **site,
        "server_names": stays["names"],
        "redirect_from": [],
        "listen": stays["plain"],
        "tls": {
            **site["tls"],
            "source": "path" if stays["encrypted"] else None,
            "listen": stays["encrypted"],
            "certificate": stays.get("ssl_certificate"),
            "key": stays.get("ssl_certificate_key"),
        },
        "socket": {
            **site["socket"],
            "path": stays.get("uwsgi_pass", "").removeprefix("unix:") or site["socket"]["path"],
        },
    }


def unproven(name: str) -> str | None:
    """
    Why a site's part of nginx's tree is not to change yet: the release that the pillar asks for is
    not live, or an operator has given the site back. The release is live when its generation of uWSGI is up, is enabled, which it is once it has
    answered the health request, and has its static files published. Read from the host.

    name
        the site

    Returns a sentence; None when the release is live.

    Raises CommandExecutionError when the pillar is not valid.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_site.unproven mysite
    """
    try:
        state_dir = __salt__["site_pillar.settings"]()["lookup"]["state_dir"]
        if since := takeover_record.read(state_dir, name)["reverted"]:
            return (
                f"takeover.revert gave it back at {since} to what served it before: "
                f"`takeover.resume {name}` lets the next run take it over again"
            )
        awaits = __salt__["release_source.awaits"](name)
        if awaits:
            return f"its release is not on this host: it comes {awaits}"
        wanted = __salt__["uwsgi_generation.diff"](name)
        if {"generation", "enabled"} & set(wanted["changes"]):
            return (
                f"generation {wanted['digest']}, which the pillar asks for, is not up and healthy"
            )
        switch = __salt__["release_live.diff"](name)
        if {"current", "live", "published"} & set(switch):
            return "its release is not live: the switch to it has not ended"
    except (CommandExecutionError, SaltInvocationError, OSError) as error:
        return f"{error}"
    return None


def has_challenges(name: str) -> bool:
    """
    Whether the file that nginx has of a site serves the challenges of an ACME authority.

    name
        the site

    Returns True or False.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_site.has_challenges mysite
    """
    text = durable_file.read(f"{_directory()}/sites-available/{name}.conf") or b""
    return __salt__["site_certificate.webroot"]().encode() in text


def http(
    taken: list[str],
    saltenv: str = "base",
    defaulted: list[list[Any]] | None = None,
    forgotten: int = 0,
    version: str | None = None,
    held: dict[str, dict[str, Any] | None] | None = None,
) -> str:
    """
    What stands at the level of ``http`` for all sites together.

    taken
        the directives of that level that the distribution or somebody else sets already
    saltenv
        the fileserver's environment to take the template from
    defaulted
        ``[address, port]`` where somebody else's server is the default
    forgotten
        how many sites stay that the pillar does not name any more
    version
        as in :py:func:`files`
    held
        the sites whose files stay as they are, each with what its file says (``names``, ``plain``
        and ``encrypted`` listens, ``ssl_certificate``, ``ssl_certificate_key``, ``uwsgi_pass``);
        None for a site that nginx does not name yet

    Returns some lines of configuration.

    Raises CommandExecutionError as :py:func:`render` does.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_site.http '[]'
    """
    settings = __salt__["site_pillar.settings"]()
    sites = {
        name: _as_it_is(site, stays) if (stays := (held or {}).get(name)) else site
        for name, site in settings["sites"].items()
        if not site["absent"] and (not held or held.get(name, {}) is not None)
    }
    names = [
        str(word)
        for site in sites.values()
        for word in [*site["server_names"], *site["redirect_from"]]
    ]
    nginx = settings["nginx"]
    templates, others = _templates(saltenv, version), defaulted or []
    catch_all = nginx["catch_all"]
    if catch_all is None:
        catch_all = len(sites) + forgotten > 1
    asked = (nginx["health"] or {}).get("site")
    given = {
        "nginx": nginx,
        "hash_sizes": _hash_sizes(names),
        "taken": taken,
        "refused": _refused(sites, others) if catch_all else [],
        "encrypted": (
            _refused_tls(sites, nginx["health"], others, templates) if catch_all else None
        ),
        "health": nginx["health"],
        "site": sites.get(asked, settings["sites"].get(asked)),
    }
    return templates.render("http", **given)[0]


def _hash_sizes(names: list[str]) -> dict[str, int]:
    """
    Room for the longest server name.

    ngx_hash_init() refuses to start when a bucket does not hold its longest element: a pointer,
    the length and the name, rounded up to pointers, and one pointer more.  With the default of 64
    that is a name of 46 characters; EC2 gives a host one of up to 63.
    """
    longest = max([63, *(len(name.encode()) for name in names)])
    bucket = 128
    while bucket < 16 + (longest + 2 + 7) // 8 * 8:
        bucket *= 2
    sizes = {"server_names_hash_bucket_size": bucket}
    if len(names) > 256:
        entries = 512
        while entries < 2 * len(names):
            entries *= 2
        sizes["server_names_hash_max_size"] = entries
    return sizes
