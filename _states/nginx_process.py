"""
nginx runs, and it runs the binary and the configuration that are on the disk.

.. code-block:: yaml

    'nginx: reloaded or upgraded if needed':
      nginx_process.current:
        - name: nginx

It needs no ``watch``: see :py:mod:`the execution module <_modules.nginx_process>` for how it knows.

.. versionadded:: 0.1.0
"""

import os
from typing import Any

from salt.exceptions import CommandExecutionError

__virtualname__ = "nginx_process"

# What is done about what is due, and how it is told.
_ACTS = {
    "enable": ("enabled", "starts with the system"),
    "start": ("started", "was started"),
    "upgrade": ("binary", "the new binary took over"),
    "reload": ("configuration", "was reloaded"),
}


def __virtual__() -> str:
    return __virtualname__


def _pending() -> bool:
    """In a dry run: whether the tree, too, would change before nginx is asked."""
    try:
        return bool(__salt__["nginx_tree.diff"](saltenv=__env__))
    except CommandExecutionError:
        # nginx_tree.applied has reported it.
        return False


def current(name: str, timeout: float = 60) -> dict[str, Any]:
    """
    nginx is enabled and running, with the binary and the configuration that are on the disk.

    name
        a label, ``nginx``
    timeout
        seconds for a start, a reload or an upgrade to be seen to work

    Returns the usual dictionary.  When nothing is due no signal is sent.  A reload counts only when
    all the workers that take connections were started by it.
    """
    ret: dict[str, Any] = {"name": name, "result": True, "changes": {}, "comment": ""}
    unit = "nginx"
    try:
        unit = __salt__["site_pillar.settings"]()["lookup"]["nginx_service"]
        due = __salt__["nginx_process.diff"]()
    except CommandExecutionError as error:
        if __opts__["test"] and "not-found" in f"{error}":
            ret["result"] = None
            ret["comment"] = "nginx is not installed yet; it would be enabled and running"
            ret["changes"] = {unit: {"old": None, "new": "running"}}
            return ret
        ret["result"], ret["comment"] = False, f"{error}"
        return ret
    if "masked" in due:
        ret["result"] = False
        ret["comment"] = f"{due['masked']}: 'systemctl unmask {unit}' lets it run"
        return ret
    if __opts__["test"]:
        return _foretold(ret, due)
    if not due:
        __salt__["nginx_process.sweep"]()
        ret["comment"] = "It runs the binary and the configuration that are on the disk"
        return ret

    told = []
    try:
        if "enable" in due:
            __salt__["systemd_unit.enable"]([f"{unit}.service"])
            ret["changes"]["enabled"] = {"old": False, "new": True}
            told.append(f"it starts with the system ({due['enable']})")
        for act, function in (
            ("start", "nginx_process.start"),
            ("upgrade", "nginx_process.upgrade"),
            ("reload", "nginx_process.reload"),
        ):
            if act in due:
                done = __salt__[function](timeout=timeout)
                ret["changes"][_ACTS[act][0]] = {
                    "old": None if act == "start" else due[act],
                    "new": f"{_ACTS[act][1]}, process {done['pid']}",
                }
                told.append(f"{_ACTS[act][1]} ({due[act]})")
            if act == "upgrade" and act in due:
                # One that a killed run had started may have read what was on the disk then.
                due = __salt__["nginx_process.diff"]()
        # A reload alone has seen to it itself.
        rest = __salt__["nginx_process.diff"]() if set(due) != {"reload"} else {}
        if rest:
            raise CommandExecutionError(f"it did not take: {'; '.join(rest.values())}")
    except CommandExecutionError as error:
        ret["result"], ret["comment"] = False, f"{error}"
        return ret
    ret["comment"] = "nginx: " + ", ".join(told)
    return ret


def let_go(name: str, timeout: float = 60) -> dict[str, Any]:
    """
    A running nginx holds nothing that is no longer on the disk; one that is stopped or not
    installed stays as it is.

    name, timeout
        as in :py:func:`current`

    Returns the usual dictionary.
    """
    if __salt__["nginx_process.status"](lines=0)["running"]:
        return current(name, timeout)
    return {"name": name, "result": True, "changes": {}, "comment": "nginx does not run here"}


def _foretold(ret: dict[str, Any], due: dict[str, str]) -> dict[str, Any]:
    pending = (
        os.path.exists(
            os.path.join(__salt__["site_pillar.settings"]()["lookup"]["nginx_dir"], "nginx.conf")
        )
        and _pending()
    )
    if pending and not {"start", "upgrade", "reload"} & set(due):
        due = {**due, "reload": "its tree would change"}
    if not due:
        ret["comment"] = "It runs the binary and the configuration that are on the disk"
        return ret
    if not pending and {"start", "upgrade", "reload"} & set(due):
        verdict = __salt__["nginx_tree.check"]()
        if not verdict["ok"]:
            ret["result"] = False
            ret["comment"] = "nginx refuses the tree that is on the disk:\n" + "\n".join(
                verdict["errors"]
            )
            return ret
    ret["result"] = None
    ret["changes"] = {_ACTS[act][0]: {"old": reason, "new": act} for act, reason in due.items()}
    ret["comment"] = "It would: " + ", ".join(f"{act} ({why})" for act, why in due.items())
    return ret
