"""
nginx's listening sockets, held by systemd.

A restart of nginx, by hand or by a package's scripts, closes its sockets: 115 to 159 of some 900
requests were refused.  A socket that systemd holds stays open meanwhile, and a connection waits in
its queue.  So for each address that nginx listens on there is a unit ``nginx-listen-ADDRESS.socket``,
and a drop-in of ``nginx.service`` hands the sockets over as nginx itself does it to a new binary:
by their numbers in the variable ``NGINX``
(https://nginx.org/en/docs/dev/development_guide.html, ``ngx_add_inherited_sockets()``).

- The numbers are made from ``LISTEN_FDS`` where nginx is started and nowhere else: ``nginx -t`` and
  ``nginx -s`` do not see them, and without held sockets nginx starts as packaged.  nginx asks each
  socket for its address, so their order does not matter.
- Which addresses: those that the running nginx has, asked of the kernel.
- systemd cannot bind what nginx has bound by itself (before the formula came, or a port that was
  added by a reload).  Such a socket goes over the next time that nginx is started: the drop-in orders
  its unit between the stop and the start.  Until then the state says that it is not in force.  Only
  an nginx that this very run has installed, on which nobody relies yet, is restarted for it.
- A held socket that nginx does not have would keep it from binding that address in a reload, and
  its clients would wait for nobody: it is let go before.
- To let go loses nothing: nginx has the socket open, too.

While nginx is stopped, connections wait instead of being refused.

.. versionadded:: 0.1.0
"""

import os
import re
from collections.abc import Iterable
from typing import Any

from salt.exceptions import CommandExecutionError

from _nud import cache, durable_file, nginx_workers, proc

__virtualname__ = "nginx_socket"

_MARKER = "# Managed by the Salt formula nginx_uwsgi_django: changes made here are overwritten."

# Late in the alphabet: it has the last word, and is made from what the others say.
_DROP_IN = "zz-nginx_uwsgi_django.conf"

# LISTEN_FDS sockets from number 3 on: sd_listen_fds(3).  With inherited sockets nginx does not become
# a daemon (main() in src/core/nginx.c), and Type=forking waits for that: so the shell leaves it behind
# once its pid file says that it has come up.
_HAND_OVER = (
    "n=0; while [ $$n -lt $${LISTEN_FDS:-0} ]; do "
    'NGINX="$$NGINX$$((n + 3));"; n=$$((n + 1)); done; '
    "unset LISTEN_FDS LISTEN_PID LISTEN_FDNAMES; "
    '[ $$n -gt 0 ] || exec "$$@"; export NGINX; "$$@" & '
    'until [ "$$(cat PID_FILE 2>/dev/null)" = $$! ]; do '
    "kill -0 $$! 2>/dev/null || { wait $$!; exit; }; sleep 0.05; done"
)


_NEW = "nginx_socket.newly_installed"


def __virtual__() -> str:
    return __virtualname__


def _settings() -> dict[str, Any]:
    return __salt__["site_pillar.settings"]()


def _service() -> str:
    return f"{_settings()['lookup']['nginx_service']}.service"


def _prefix() -> str:
    return f"{_settings()['lookup']['nginx_service']}-listen"


def _unit_dir() -> str:
    return str(_settings()["lookup"]["unit_dir"])


def _drop_in() -> str:
    return f"{_unit_dir()}/{_service()}.d/{_DROP_IN}"


def _anchor() -> str:
    return f"{_unit_dir()}/{_prefix()}@.service"


def _unit(address: str) -> str:
    """The name of an address's unit: a unit's name cannot have brackets."""
    return f"{_prefix()}-{address.replace('[', 'ipv6:').replace(']', '')}.socket"


def _listening(pid: int) -> dict[str, list[str]]:
    """The addresses that a process listens on: its sockets' inodes by address."""
    found: dict[str, list[str]] = {}
    every = proc.listening()
    for inode in sorted(proc.sockets(pid) & every.keys()):
        found.setdefault(every[inode].address, []).append(inode)
    return found


def _others(pid: int) -> list[str]:
    """What a process listens on besides TCP: unix sockets, and UDP's (``listen ... quic``)."""
    theirs = proc.sockets(pid)
    # A socket of a log is connected.
    udp = {f"{bound.address} (UDP)" for inode, bound in proc.bound_udp().items() if inode in theirs}
    unix = {
        f"unix:{os.fsencode(path).decode('utf-8', 'replace')}"
        for inode, path in proc.listening_unix().items()
        if inode in theirs
    }
    return sorted(udp | unix)


def _on_disk() -> dict[str, str]:
    """The units that there are: their address by name."""
    found = {}
    folder, prefix = _unit_dir(), f"{_prefix()}-"
    for name in sorted(os.listdir(folder)):
        if name.startswith(prefix) and name.endswith(".socket"):
            text = (durable_file.read(f"{folder}/{name}") or b"").decode()
            listen = re.search(r"^ListenStream=(\S+)$", text, re.MULTILINE)
            if text.startswith(_MARKER) and listen:
                found[name] = listen[1]
    return found


def _shown(units: Iterable[str]) -> dict[str, dict[str, str]]:
    """What systemd says of nginx's unit and of those that hold its sockets."""
    properties = ["ActiveState", "MainPID", "PIDFile", "FragmentPath", "DropInPaths", "Type"]
    names = [_service(), *units]
    return cache.once(
        ("nginx_socket", *names), lambda: __salt__["systemd_unit.show"](names, properties)
    )


def _active(units: dict[str, str], shown: dict[str, dict[str, str]]) -> dict[str, str]:
    return {
        address: unit
        for unit, address in units.items()
        if shown.get(unit, {}).get("ActiveState") == "active"
    }


def held() -> dict[str, str]:
    """
    The addresses that systemd holds for nginx now.

    Returns the name of the socket unit by address, written as nginx does: ``0.0.0.0:80``,
    ``[::]:80``.

    Raises CommandExecutionError when systemd does not answer.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_socket.held
    """
    units = _on_disk()
    return _active(units, _shown(units)) if units else {}


def _packaged() -> tuple[str, str, str | None]:
    """
    How nginx's unit starts it without this formula's drop-in: its pid file, its command, and why
    nothing can be put before that command (None: it can).
    """
    shown = _shown(_on_disk()).get(_service(), {})
    pid_file = shown.get("PIDFile", "")
    if shown.get("Type") != "forking" or not re.fullmatch(r"[\w./-]+", pid_file):
        return "", "", f"{_service()} is not of Type=forking with a PIDFile="
    paths = [shown.get("FragmentPath", ""), *shown.get("DropInPaths", "").split()]
    commands: list[str] = []
    for path in paths:
        text = durable_file.read(path) if path and path != _drop_in() else None
        lines = (text or b"").decode("utf-8", "replace").replace("\\\n", " ")
        for value in re.findall(r"^[ \t]*ExecStart[ \t]*=(.*)$", lines, re.MULTILINE):
            commands = [*commands, value.strip()] if value.strip() else []
    if len(commands) != 1 or not commands[0].startswith("/"):
        known = ", ".join(commands) or "none is known"
        return "", "", f"{_service()} is not started by one plain command: {known}"
    return pid_file, commands[0], None


def obstacle() -> str | None:
    """
    Why systemd can hold no socket for nginx as its unit is; None when it can.

    Raises CommandExecutionError when systemd does not answer.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_socket.obstacle
    """
    return _packaged()[2]


def _command() -> str:
    """What starts nginx, with our words before."""
    pid_file, command, reason = _packaged()
    if reason:
        raise CommandExecutionError(reason)
    return f"/bin/sh -c '{_HAND_OVER.replace('PID_FILE', pid_file)}' sh {command}"


def unit_files(addresses: list[str]) -> dict[str, str]:
    """
    The unit files that hold sockets for nginx.

    addresses
        as :py:func:`held` writes them

    Returns text by path; the drop-in of nginx's own unit is the last.

    Raises CommandExecutionError when nginx's unit starts it in a way that nothing can be put before.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_socket.unit_files '["0.0.0.0:80"]'
    """
    files = {
        _anchor(): f"""\
{_MARKER}
[Unit]
Description=Anchor of a listening socket of nginx (%i)
# A connection activates this and not nginx: a stopped nginx stays stopped.
Requires={_prefix()}-%i.socket
After={_prefix()}-%i.socket

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
"""
    }
    for address in addresses:
        unit = _unit(address)
        instance = unit[len(_prefix()) + 1 : -len(".socket")]
        files[f"{_unit_dir()}/{unit}"] = f"""\
{_MARKER}
[Unit]
Description=Listening socket of nginx ({address})

[Socket]
ListenStream={address}
# As nginx binds one: not for IPv4 as well, and before the address is the host's.
BindIPv6Only=ipv6-only
FreeBind=yes
Service={_prefix()}@{instance}.service
"""
    names = " ".join(_unit(address) for address in addresses)
    files[_drop_in()] = f"""\
{_MARKER}
[Unit]
# A start limit that is hit would close the sockets: systemd.socket(5).
StartLimitIntervalSec=0

[Service]
Sockets={names}
# systemd hands sockets over as blocking ones, and nginx leaves an inherited one as it is: a worker that
# finds a connection taken by the other would wait in accept(2) for the next, and serve nobody meanwhile.
NonBlocking=yes
ExecStart=
ExecStart={_command()}
# Finish the requests, for as long as Debian's own unit waits for them.
ExecStop=
KillSignal=SIGQUIT
KillMode=mixed
TimeoutStopSec=5
"""
    return files


def newly_installed() -> None:
    """
    Know for the rest of this run that it has installed nginx: it may be restarted.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_socket.newly_installed
    """
    __context__[_NEW] = True


def status() -> dict[str, Any]:
    """
    Which of nginx's listening sockets systemd holds.

    Returns a dictionary: ``running`` (False: nothing else is known), ``held`` (addresses that
    outlive nginx), ``own`` (addresses that nginx has bound by itself: they go over when it is
    started next), ``several`` (addresses with a socket for each worker, ``listen … reuseport``:
    those are never held), ``others`` (unix sockets and UDP's, never held either), ``unused``
    (held, but nginx does not have them).

    Raises CommandExecutionError when systemd does not answer.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_socket.status
    """
    units = _on_disk()
    shown = _shown(units)
    master, _ = nginx_workers.masters(shown.get(_service(), {}))
    now = _active(units, shown)
    answer: dict[str, Any] = {
        "running": master is not None,
        "held": [],
        "own": [],
        "several": [],
        "others": [],
        "unused": [],
    }
    if master is None:
        return answer
    listening, kept = _listening(master), proc.sockets(1)
    for address, sockets in sorted(listening.items()):
        if len(sockets) > 1:
            answer["several"].append(address)
        elif sockets[0] in kept and address in now:
            answer["held"].append(address)
        else:
            answer["own"].append(address)
    answer["others"] = _others(master)
    answer["unused"] = sorted(set(now) - set(answer["held"]))
    return answer


def let_go(addresses: list[str] | None = None) -> list[str]:
    """
    Let systemd close its side of sockets; nginx keeps those that it has.

    addresses
        as :py:func:`held` writes them; by default the ones that nginx does not have

    Returns the addresses that were let go.

    Raises CommandExecutionError when systemd does not obey.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_socket.let_go
    """
    with cache.session():
        now = held()
        if not now:
            return []  # without a second's look at who is connected
        going = [a for a in (status()["unused"] if addresses is None else addresses) if a in now]
    if going:
        # The anchors go with them.
        __salt__["systemd_unit.stop"]([now[address] for address in going])
    return going


def diff(now: dict[str, Any] | None = None) -> dict[str, Any]:
    """
    What :py:func:`ensure` would do, by what it is about; empty when all is right.

    now
        what :py:func:`status` says, where it was asked already

    Raises CommandExecutionError as :py:func:`unit_files` does.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_socket.diff
    """
    now = now or status()
    changes: dict[str, Any] = {}
    wanted = sorted({*now["held"], *now["own"]})
    files = unit_files(wanted)
    for path, text in files.items():
        if durable_file.differs(path, text):
            changes[path] = {"old": "other content" if os.path.lexists(path) else None, "new": text}
    for unit, address in _on_disk().items():
        if f"{_unit_dir()}/{unit}" not in files:
            changes[f"{_unit_dir()}/{unit}"] = {"old": f"listens on {address}", "new": None}
    for address in now["unused"]:
        changes[address] = {"old": "held, and nginx does not have it", "new": "let go"}
    if now["own"] and __context__.get(_NEW):
        changes["held"] = {"old": now["held"], "new": wanted}
    return changes


def ensure() -> dict[str, Any]:
    """
    Let systemd hold what the running nginx listens on, as far as that loses no request.

    A socket that nginx has bound by itself goes over when nginx is started next.

    Returns the changes. With ``held`` among them this run has installed nginx, and it is to be
    restarted now: :py:func:`nginx_process.restart`.

    Raises CommandExecutionError when it did not work.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_socket.ensure
    """
    with cache.session():
        now = status()
        changes = diff(now)
        files = unit_files(sorted({*now["held"], *now["own"]}))
    let_go(now["unused"])
    durable_file.directory(os.path.dirname(_drop_in()))
    for path, text in files.items():
        durable_file.write(path, text)
    for unit in _on_disk():
        if f"{_unit_dir()}/{unit}" not in files:
            durable_file.remove(f"{_unit_dir()}/{unit}")
    __salt__["systemd_unit.daemon_reload"]()
    return changes


def remove(test: bool = False) -> dict[str, Any]:
    """
    Give nginx's unit back as packaged; the running nginx keeps its sockets and its processes.

    test
        change nothing

    Returns the changes.

    Raises CommandExecutionError when systemd does not obey.

    CLI Example:

    .. code-block:: bash

        salt '*' nginx_socket.remove test=True
    """
    now = held()
    # The drop-in first: a start in between must not ask for sockets that are going.
    paths = [_drop_in(), *(f"{_unit_dir()}/{unit}" for unit in _on_disk()), _anchor()]
    changes = {path: {"old": "there", "new": None} for path in paths if os.path.lexists(path)}
    changes.update({address: {"old": "held by systemd", "new": "nginx's own"} for address in now})
    if test or not changes:
        return changes
    durable_file.remove(_drop_in())
    __salt__["systemd_unit.daemon_reload"]()
    let_go(list(now))
    for path in paths:
        durable_file.remove(path)
    folder = os.path.dirname(_drop_in())
    if os.path.isdir(folder) and not os.listdir(folder):
        os.rmdir(folder)
    __salt__["systemd_unit.daemon_reload"]()
    return changes
