"""
The distribution's packages that nginx and the sites need.

Which ones follows from the pillar: nginx itself; for sites the interpreter's ``venv`` module,
uWSGI where the pillar takes it from the distribution, a compiler where it takes PyPI's ``uwsgi``,
logrotate where it logs to a file, openssl and certbot where they have certificates to make and to ask for.
A site can name more (``project:packages``).  :py:mod:`apt_packages <_modules.apt_packages>` installs
them and records what came, so that ``clean`` removes that and nothing else.

.. versionadded:: 0.1.0
"""

from typing import Any

from salt.exceptions import CommandExecutionError

__virtualname__ = "system_packages"


def __virtual__() -> str:
    return __virtualname__


def _wanted(name: str, settings: dict) -> list[str]:
    if name == "nginx":
        return [settings["lookup"]["nginx_package"]]
    if name != "sites":
        raise CommandExecutionError(f"the name is nginx or sites, not {name!r}")
    wanted = set()
    for site in settings["sites"].values():
        if site["absent"]:
            continue
        if site["project"]["venv"] is None:
            # Debian's python3 carries venv but not the ensurepip that fills one.
            wanted.add("python3-venv")
        wanted.update(site["project"]["packages"])
        wanted.update(__salt__["release_source.packages"](site["project"]["source"]))
        package = site["uwsgi"]["package"] or ""
        if package == "distro":
            wanted.update(("uwsgi-core", "uwsgi-plugin-python3"))
        elif package.startswith("uwsgi"):
            # uWSGI links libcrypt, which libc6-dev of Debian 13 and before brings along and that of
            # Debian 14 does not.
            wanted.update(("build-essential", "libcrypt-dev", "python3-dev"))
        if site["uwsgi"]["log"]["to"] == "file":
            wanted.add("logrotate")
        if site["tls"]["source"]:
            wanted.add("openssl")
        if site["tls"]["source"] == "acme":
            wanted.add("certbot")
    return sorted(wanted)


def installed(name: str) -> dict:
    """
    The packages are installed; a newer version is left to the operator and to unattended-upgrades.

    name
        ``nginx``: the package of nginx; ``sites``: what all the sites of the pillar are built with

    Example:

    .. code-block:: yaml

        the packages of the sites:
          system_packages.installed:
            - name: sites
    """
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    try:
        settings = __salt__["site_pillar.settings"]()
        packages = _wanted(name, settings)
        if not packages:
            ret["comment"] = "nothing is needed from the distribution"
            return ret
        if name == "nginx" and not __opts__["test"] and __salt__["nginx_package.settle"]():
            ret["changes"]["dpkg"] = {"old": "interrupted", "new": "finished"}
        there = __salt__["dpkg_packages.on_host"]()
        missing = sorted(set(packages) - {name for name in there if there[name]["whole"]})
        if not missing:
            ret["comment"] = f"{', '.join(packages)}: installed"
            return ret
        if __opts__["test"]:
            ret["result"] = None
            ret["changes"] = {package: {"old": "", "new": "installed"} for package in missing}
            ret["comment"] = f"{', '.join(missing)} would be installed"
            return ret
        report = __salt__["apt_packages.install"](missing)
        ret["changes"].update(report["changes"])
        ret["comment"] = "\n".join([f"{', '.join(missing)}: installed now", *report["warnings"]])
        if name == "nginx":
            __salt__["nginx_socket.newly_installed"]()
    except (CommandExecutionError, OSError, ValueError) as error:
        ret["result"] = False
        ret["comment"] = str(error)
    return ret


def absent(name: str) -> dict:
    """
    The packages that :py:func:`installed` put on this host are removed, with those that came along
    and that nothing else needs; those that were there before stay.  Their configuration files stay,
    as with ``apt-get remove``.

    name
        ``all``

    Example:

    .. code-block:: yaml

        packages: removed:
          system_packages.absent:
            - name: all
    """
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    try:
        if not __salt__["apt_packages.recorded"]():
            ret["comment"] = "this formula installed no package that is still there"
        elif __opts__["test"]:
            going = __salt__["apt_packages.leftovers"]()
            ret["result"] = None
            ret["changes"] = {package: {"old": "installed", "new": ""} for package in going}
            ret["changes"]["record"] = {"old": "packages of the formula", "new": None}
            ret["comment"] = f"would be removed: {', '.join(going) or 'the record alone'}"
        else:
            ret["changes"] = __salt__["apt_packages.remove"]()
            ret["comment"] = f"removed: {', '.join(ret['changes']) or 'the record alone'}"
            ret["changes"]["record"] = {"old": "packages of the formula", "new": None}
    except (CommandExecutionError, OSError, ValueError) as error:
        ret["result"] = False
        ret["comment"] = str(error)
    return ret
