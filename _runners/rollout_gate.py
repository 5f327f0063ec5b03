"""
Whether a host may be changed, and whether it is well after it was. Decides only: asks nobody.

.. versionadded:: 0.1.0
"""

from typing import Any

__virtualname__ = "rollout_gate"

# Seconds by which a request may always take longer: below that, one cannot tell a change from the
# noise of a host that has just started its application anew.
_GRACE = 0.25

# Bytes by which a site's memory may always grow: a release that imports more is not a leak.
_ROOM = 128 << 20

# What the IDs of states begin with that are about no site.
_NOT_SITES = ("nginx", "nginx_uwsgi_django", "sites")


def __virtual__() -> str:
    return __virtualname__


def states(returned: Any) -> dict[str, Any]:
    """
    What ``state.apply`` said.

    returned
        what it returned: a mapping of states, or anything else when it could not be rendered

    Returns ``changes`` (IDs of the states that changed something, or would), and ``failed`` (a
    sentence for each state that failed, in their order; at least one when nothing was run).

    CLI Example:

    .. code-block:: bash

        salt-run rollout_gate.states '["Rendering SLS failed"]'
    """
    if not isinstance(returned, dict) or not returned:
        lines = returned if isinstance(returned, list) else [returned or "nothing was run"]
        return {"changes": [], "failed": [str(line) for line in lines] or ["nothing was run"]}
    changes, failed = [], []
    # The tag is STATE_|-ID_|-NAME_|-FUNCTION.  A state that runs others gives them its __id__, and
    # says no more of them than they do.
    rows = [(tag.split("_|-")[1], row) for tag, row in returned.items() if isinstance(row, dict)]
    told = {row.get("__id__") for label, row in rows if row.get("__id__") not in (None, label)}
    for label, row in sorted(rows, key=lambda one: one[1].get("__run_num__", 0)):
        if label in told:
            continue
        if row.get("result") is False:
            failed.append(f"{label}: {str(row.get('comment', '')).strip()}")
        elif row.get("changes") or row.get("result") is None:
            changes.append(label)
    # A state that failed only because another did adds nothing.
    causes = [words for words in failed if "One or more requisite failed" not in words]
    if not rows:
        failed = [str(returned)]
    return {"changes": changes, "failed": causes or failed}


def site_of(words: str, sites: list[str] | None = None) -> str | None:
    """
    The site that a failed state is about: its ID begins with the site's name and a colon.

    words
        a sentence of :py:func:`states`
    sites
        the host's sites; None when they are not known

    Returns a name or None.

    CLI Example:

    .. code-block:: bash

        salt-run rollout_gate.site_of 'mysite: uWSGI runs' '["mysite"]'
    """
    name = words.partition(":")[0]
    known = name not in _NOT_SITES and " " not in name if sites is None else name in sites
    return name if known else None


def unwell(look: dict[str, Any]) -> tuple[str, str] | None:
    """
    The first site that is not well, seen from inside the host.

    look
        what ``rollout_host.look`` returned

    Returns its name and the reason, or None.

    CLI Example:

    .. code-block:: bash

        salt-run rollout_gate.unwell '{"sites": {}}'
    """
    for name, site in look["sites"].items():
        if site["why"]:
            return name, site["why"]
    return None


def _share(failed: int, requests: int) -> float:
    return 100 * failed / requests if requests else 0.0


def worse(
    before: dict[str, Any], after: dict[str, Any], limits: dict[str, Any]
) -> tuple[str | None, str] | None:
    """
    In what a host is worse than before, by its requests in two windows of time.

    before, after
        ``requests``, ``errors`` and ``sites`` as ``rollout_host.measure`` gives them, each site
        perhaps with ``asked``, ``lost`` and ``median`` of the master's own requests
    limits
        the pillar's ``rollout``

    Returns a site (None: the host as a whole) and the reason, or None. A site that was not there
    before is not compared.

    CLI Example:

    .. code-block:: bash

        salt-run rollout_gate.worse '{...}' '{...}' '{"errors": 1, "slower": 100, "memory": 100}'
    """
    was, now = (_share(one["errors"], one["requests"]) for one in (before, after))
    if after["errors"] and now > was + limits["errors"]:
        return None, (
            f"of {after['requests']} requests {after['errors']} failed ({now:.1f} %), before it "
            f"were {was:.1f} %"
        )
    for name, site in after["sites"].items():
        old = before["sites"].get(name)
        if old is None:
            continue
        if "asked" in site and "asked" in old:
            was, now = _share(old["lost"], old["asked"]), _share(site["lost"], site["asked"])
            if site["lost"] and now > was + limits["errors"]:
                return name, (
                    f"{site['lost']} of {site['asked']} requests from the master failed, before "
                    f"it were {was:.1f} %"
                )
        for key, whose in (("median", "the master's requests take"), ("mean", "requests take")):
            was_long, now_long = old.get(key), site.get(key)
            if was_long is None or now_long is None:
                continue
            if now_long > was_long * (1 + limits["slower"] / 100) + _GRACE:
                return name, f"{whose} {now_long:.2f} s, before it were {was_long:.2f} s"
        had, has = old.get("memory"), site.get("memory")
        if had and has and has > had * (1 + limits["memory"] / 100) + _ROOM:
            return name, f"its uWSGI has {has >> 20} MiB of memory, before it were {had >> 20} MiB"
    return None
