"""
The certificates that sites ask an ACME authority for.

A certificate of the pillar, and the self-signed one that a site has until its first arrives, are
part of nginx's tree: see :py:mod:`nginx_tree <_states.nginx_tree>`.

.. versionadded:: 0.1.0
"""

from typing import Any

from salt.exceptions import CommandExecutionError

__virtualname__ = "site_certificate"


def __virtual__() -> str:
    return __virtualname__


def issued(name: str, timeout: float = 60, unproven: bool = False) -> dict[str, Any]:
    """
    A site with ``tls:acme`` has the authority's certificate, and nginx serves it.

    name
        the site
    timeout
        seconds for nginx's reload to be seen to work
    unproven
        as for :py:func:`nginx_tree.applied`

    Returns the usual dictionary. The authority is asked only when there is no certificate, when it
    is for other names or from another authority, or when certbot's timer has not renewed it in
    time. What it says no to is told in certbot's words, and the site is served as before.

    .. code-block:: yaml

        'mysite: its certificate is the one of the ACME authority':
          site_certificate.issued:
            - name: mysite
    """
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    try:
        source = __salt__["site_pillar.site"](name)["tls"]["source"]
        if source != "acme":
            ret["comment"] = "its certificate does not come by ACME" if source else "it has no TLS"
            return ret
        due = __salt__["site_certificate.diff"](name)
        if not due:
            left = __salt__["site_certificate.report"]()[name].get("days_left")
            ret["comment"] = f"its certificate is good for {left} days"
            return ret
        if __opts__["test"]:
            ret["result"] = None
            ret["changes"] = {key: {"old": None, "new": why} for key, why in due.items()}
            ret["comment"] = f"would be asked for or put right: {'; '.join(due.values())}"
            return ret
        __salt__["site_certificate.prepare"](name)
        if "prepare" in due:
            ret["changes"]["prepare"] = {"old": None, "new": "what certbot's timer needs"}
        if "request" in due:
            got = __salt__["site_certificate.request"](name)
            ret["changes"]["certificate"] = {"old": due["request"], "new": got}
        applied = __salt__["nginx_tree.ensure"](saltenv=__env__, unproven=unproven)
        ret["changes"].update(applied["changes"])
        if "reload" in __salt__["nginx_process.diff"]():
            __salt__["nginx_process.reload"](timeout=timeout)
            ret["changes"]["nginx"] = {"old": None, "new": "was reloaded"}
        ret["comment"] = "; ".join(due.values())
    except (CommandExecutionError, OSError) as error:
        ret.update(result=False, comment=str(error))
    return ret


def retired(name: str, everything: bool = False) -> dict[str, Any]:
    """
    No certificate is renewed that no site asks for; where the pillar gives up a site's data
    (``clean:data``), its certificate is deleted.

    name
        a label
    everything
        as if no site asked for one, and the files for certbot's timer go too

    .. code-block:: yaml

        'acme: unused certificates no longer renewed':
          site_certificate.retired:
            - name: nginx_uwsgi_django
    """
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    try:
        surplus = __salt__["site_certificate.leftovers"](everything)
        files = __salt__["site_certificate.leftover_files"]() if everything else []
        words = {"delete": "deleted", "pause": "no longer renewed"}
        ret["changes"] = {
            **{lineage: {"old": "renewed", "new": words[how]} for lineage, how in surplus.items()},
            **{path: {"old": "there", "new": None} for path in files},
        }
        if not ret["changes"]:
            ret["comment"] = "every certificate that is renewed is asked for by a site"
            return ret
        if __opts__["test"]:
            ret["result"] = None
            ret["comment"] = f"would go: {', '.join(ret['changes'])}"
            return ret
        for lineage, how in surplus.items():
            __salt__["site_certificate.retire"](lineage, how)
        if files:
            __salt__["site_certificate.remove_files"]()
        left = __salt__["site_certificate.leftovers"](everything)
        if left:
            raise CommandExecutionError(f"still there: {', '.join(left)}")
        ret["comment"] = f"gone: {', '.join(ret['changes'])}"
    except (CommandExecutionError, OSError) as error:
        ret.update(result=False, changes={}, comment=str(error))
    return ret
