"""
A security group of EC2 lets in what the pillar says, or nothing of ours.

.. versionadded:: 0.1.0
"""

from typing import Any

from salt.exceptions import CommandExecutionError

__virtualname__ = "ec2_ingress"


def __virtual__() -> str:
    return __virtualname__


def sdk(name: str, ingress: dict[str, Any] | None = None) -> dict[str, Any]:
    """
    boto3 is in Salt's own Python, on the one minion that keeps a security group.

    It is not taken out again: what else Salt does there may have come to need it.

    name
        a label, ``nginx_uwsgi_django``
    ingress
        as in :py:func:`current`

    .. code-block:: yaml

        'ec2: what asks AWS is installed':
          ec2_ingress.sdk:
            - name: nginx_uwsgi_django

    .. versionadded:: 0.1.0
    """
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    try:
        if __salt__["ec2_ingress.asked"](ingress) is None:
            ret["comment"] = "this minion is asked to keep no security group"
            return ret
        version = __salt__["ec2_ingress.installed"]()
        if version:
            ret["comment"] = f"boto3 {version} is there"
            return ret
        ret["changes"] = {"boto3": {"old": None, "new": "installed"}}
        if __opts__["test"]:
            ret.update(result=None, comment="boto3 would be installed")
            return ret
        version = __salt__["ec2_ingress.install"]()
    except (CommandExecutionError, OSError) as error:
        ret.update(result=False, changes={}, comment=str(error))
        return ret
    ret["changes"]["boto3"]["new"] = version
    ret["comment"] = f"boto3 {version} was installed"
    return ret


def current(name: str, ingress: dict[str, Any] | None = None) -> dict[str, Any]:
    """
    The security group of the pillar's ``ec2:ingress`` lets in its ports from its ranges, and no
    other of our rules is left. Rules of anybody else stay; one that lets in the same counts.

    A dry run asks AWS whether it would allow the changes, and fails when it would not.

    name
        a label, ``nginx_uwsgi_django``
    ingress
        for an orchestration: a mapping as under ``ec2:ingress``, in place of the pillar's

    .. code-block:: yaml

        'ec2: security group rules':
          ec2_ingress.current:
            - name: nginx_uwsgi_django

    .. versionadded:: 0.1.0
    """
    return _brought(name, True, ingress)


def absent(name: str, ingress: dict[str, Any] | None = None) -> dict[str, Any]:
    """
    No rule that this minion made is left in the security group of the pillar's ``ec2:ingress``.

    name, ingress
        as in :py:func:`current`

    .. code-block:: yaml

        'ec2: security group rules removed':
          ec2_ingress.absent:
            - name: nginx_uwsgi_django

    .. versionadded:: 0.1.0
    """
    return _brought(name, False, ingress)


def _brought(name: str, keep: bool, ingress: dict[str, Any] | None) -> dict[str, Any]:
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    try:
        wanted = __salt__["ec2_ingress.asked"](ingress)
        if wanted is None:
            ret["comment"] = "this minion is asked to keep no security group"
            return ret
        if __opts__["test"] and __salt__["ec2_ingress.installed"]() is None:
            ret.update(
                result=None, comment="boto3 would be installed first; until then AWS is not asked"
            )
            return ret
        says = f"{wanted['group']} lets in " + ("what is asked for" if keep else "nothing of ours")
        found = __salt__["ec2_ingress.pending"](keep, ingress, rehearse=__opts__["test"])
        ret["comment"] = says + _others(found)
        if not found["changes"]:
            return ret
        if __opts__["test"]:
            ret.update(
                result=None, changes=found["changes"], comment=f"would be: {says}{_others(found)}"
            )
            return ret
        still = __salt__["ec2_ingress.bring"](keep, ingress)
    except (CommandExecutionError, OSError) as error:
        ret.update(result=False, comment=str(error))
        return ret
    ret["comment"] = says + _others(still)
    ret["changes"] = {
        what: change for what, change in found["changes"].items() if what not in still["changes"]
    }
    if still["changes"]:
        ret["result"] = False
        ret["comment"] = (
            f"done, and yet {wanted['group']} is not as it should be: "
            f"{', '.join(sorted(still['changes']))}"
        )
    return ret


def _others(found: dict[str, Any]) -> str:
    if not found["others"]:
        return ""
    return f" (by a rule of somebody else's: {', '.join(sorted(found['others']))})"
