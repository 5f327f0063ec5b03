"""
States of system accounts: nginx's user and one per site.

.. versionadded:: 0.1.0
"""

from typing import Any

from salt.exceptions import CommandExecutionError

__virtualname__ = "system_account"


def __virtual__() -> str:
    return __virtualname__


def present(name: str) -> dict[str, Any]:
    """
    The account is there: made as a system account without a login when missing, left as it is
    when somebody made it before.

    name
        ``nginx`` for the user of nginx's workers (``nginx_uwsgi_django:nginx:user``), else a
        site (its ``project:user`` and ``project:group``)

    .. code-block:: yaml

        "mysite: the system account is there":
          system_account.present:
            - name: mysite

    .. versionadded:: 0.1.0
    """
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    try:
        account = __salt__["system_account.wanted"](name)
        lacks = __salt__["system_account.diff"](name)
        if not lacks:
            ret["comment"] = f"the user {account['user']} is there"
            return ret
        ret["changes"] = {field: {"old": None, "new": value} for field, value in lacks.items()}
        if __opts__["test"]:
            ret["result"] = None
            ret["comment"] = "would be made: " + ", ".join(sorted(lacks))
            return ret
        __salt__["system_account.ensure"](name)
        still = __salt__["system_account.diff"](name)
    except (CommandExecutionError, OSError) as error:
        ret.update(result=False, changes={}, comment=str(error))
        return ret
    if still:
        ret["result"] = False
        ret["comment"] = "made, and yet missing: " + ", ".join(
            f"{field} {value}" for field, value in sorted(still.items())
        )
        return ret
    ret["comment"] = "made: " + ", ".join(sorted(lacks))
    return ret


def absent(name: str) -> dict[str, Any]:
    """
    The account is gone if this formula made it and nobody else needs it; else it stays.

    name
        ``nginx`` or a site

    .. code-block:: yaml

        "mysite: the system account is gone":
          system_account.absent:
            - name: mysite

    .. versionadded:: 0.1.0
    """
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    try:
        account = __salt__["system_account.wanted"](name)
        found = __salt__["system_account.leftovers"](name)
        if not found:
            ret["comment"] = f"nothing of the account {account['user']} is this formula's"
            return ret
        ret["changes"] = {field: {"old": value, "new": None} for field, value in found.items()}
        if __opts__["test"]:
            ret["result"] = None
            ret["comment"] = "would be removed: " + ", ".join(sorted(found))
            return ret
        __salt__["system_account.remove"](name)
        still = __salt__["system_account.leftovers"](name)
    except (CommandExecutionError, OSError) as error:
        ret.update(result=False, changes={}, comment=str(error))
        return ret
    if still:
        ret["result"] = False
        ret["comment"] = "removed, and yet there: " + ", ".join(
            f"{field} {value}" for field, value in sorted(still.items())
        )
        return ret
    ret["comment"] = "removed: " + ", ".join(sorted(found))
    return ret
