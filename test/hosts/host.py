"""
One throwaway host: a fresh overlay copy of an image, a network namespace, a systemd that boots.
"""

import contextlib
import fcntl
import http.client
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterable
from typing import Any, NoReturn, TypeVar

from . import cgroup, network, outer
from .folder import sweep
from .image import image
from .paths import FORMULA, NOT_THE_FORMULA, HostError, cache, lock
from .state_run import StateRun
from .tools import ensure_tools, environment, run, shared_locks

_NAME = re.compile(r"\A[a-z][a-z0-9-]{0,30}\Z")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Joins the control group of the host's own init, then becomes the command.
_JOIN = 'while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs" || exit 126; shift; done; shift; '
_JOIN += 'exec "$@"'
_WATCHES = 1024


# typing.Self needs Python 3.11.
_H = TypeVar("_H", bound="Host")


class CommandFailed(HostError):
    """A command inside a host failed; the message holds its output."""

    def __init__(self, message: str, done: subprocess.CompletedProcess[str]) -> None:
        super().__init__(message)
        self.returncode = done.returncode
        self.stdout = done.stdout
        self.stderr = done.stderr


def _started(pid: int) -> str | None:
    """When a process started, in clock ticks since the boot of the machine; None if it is gone."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field, the name, may hold spaces and parentheses.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def _allow_watches() -> None:
    """
    Let this machine have more inotify instances than the kernel's 128 for each user: a host's
    systemd, logind, D-Bus and gettys have about ten, and those of all hosts are one root's.
    """
    limit = pathlib.Path("/proc/sys/fs/inotify/max_user_instances")
    if int(limit.read_text("ascii")) < _WATCHES and os.access(limit, os.W_OK):
        limit.write_text(f"{_WATCHES}", "ascii")


def _boot_id() -> str:
    return pathlib.Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


def _cgroups_of(pid: int) -> list[str]:
    """The control groups of a process, as directories of this machine."""
    mounts: dict[str, str] = {}
    for line in pathlib.Path("/proc/self/mounts").read_text("utf-8").splitlines():
        _, target, kind, options, *_ = line.split()
        if kind == "cgroup2":
            mounts.setdefault("", target)
        elif kind == "cgroup" and "name=systemd" in options.split(","):
            mounts.setdefault("name=systemd", target)
    found = []
    for line in pathlib.Path(f"/proc/{pid}/cgroup").read_text("utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in mounts:
            found.append(mounts[controllers] + path)
    return found


class Host:
    """
    A throwaway host. Make one with :py:meth:`create`, get at a running one with :py:meth:`find`.

    name
        its hostname
    address
        its IPv4 address, reachable from this machine and from the other hosts
    root
        where its file system is on this machine (``/run`` and ``/tmp`` are elsewhere: use
        ``read`` and ``write``)
    release
        ``bookworm``, ``trixie`` or ``forky``
    """

    def __init__(self, record: dict[str, Any]) -> None:
        self._record = record
        self._owner_lock: Any = None
        self._process: subprocess.Popen[bytes] | None = None

    # -- what it is

    @property
    def name(self) -> str:
        """Its hostname."""
        return str(self._record["name"])

    @property
    def release(self) -> str:
        """The codename of its Debian."""
        return str(self._record["release"])

    @property
    def address(self) -> str:
        """Its IPv4 address."""
        return str(self._record["address"])

    @property
    def kept(self) -> bool:
        """Whether it outlives the process that made it."""
        return bool(self._record["kept"])

    @property
    def owner(self) -> int:
        """The process that made it."""
        return int(self._record["owner"])

    @property
    def image(self) -> pathlib.Path:
        """The image it is a copy of."""
        return pathlib.Path(self._record["image"])

    @property
    def folder(self) -> pathlib.Path:
        """Its directory on this machine."""
        return cache() / "hosts" / self.name

    @property
    def root(self) -> pathlib.Path:
        """Its file system, seen from this machine."""
        return self.folder / "root"

    @property
    def _namespace(self) -> str:
        return f"nudhost-{self.name}"

    def __repr__(self) -> str:
        return f"<Host {self.name} {self.release} {self._record.get('address')}>"

    # -- its life

    @classmethod
    def create(
        cls: type[_H],
        name: str | None = None,
        release: str = "bookworm",
        keep: bool = False,
        binds: Iterable[tuple[str | os.PathLike[str], str]] = (),
        salt: bool = True,
    ) -> _H:
        """
        Make a host and boot it.

        name
            its hostname; made up when None
        release
            ``bookworm``, ``trixie`` or ``forky``
        keep
            it outlives this process, and only ``remove()`` takes it away
        binds
            (directory on this machine, path in the host), read-only; a path that ends in ``:rw``
            can be written
        salt
            make the Salt versions available in it

        Raises HostError with one sentence when that is not possible; nothing stays behind then.
        """
        ensure_tools()
        if name is not None and not _NAME.match(name):
            raise HostError(
                f"a host's name is up to 31 of a-z, 0-9 and -, from a letter on, not {name!r}"
            )
        clean()
        _allow_watches()
        base = image(release)
        all_binds = [[os.fspath(source), target] for source, target in binds]
        all_binds.append([os.fspath(FORMULA), "/srv/formula"])
        all_binds += [[path, path] for path in outer.pip_directories()]
        if salt:
            from .salts import DIRECTORY, ensure_salts  # it uses hosts itself

            all_binds.append([os.fspath(ensure_salts()), DIRECTORY])
        with lock("hosts"):
            taken = {host._record["slot"] for host in all_hosts()}
            slot = next(number for number in range(60000) if number not in taken)
            host = cls(
                {
                    "name": name or f"host{slot}",
                    "release": release,
                    "slot": slot,
                    "image": os.fspath(base),
                    "kept": False,
                    "owner": os.getpid(),
                    "owner_started": _started(os.getpid()),
                    "boot": _boot_id(),
                    "binds": all_binds,
                    "address": None,
                    "nspawn": None,
                }
            )
            if host.folder.exists():
                raise HostError(f"there is a host named {host.name} already")
            host.folder.mkdir(parents=True)
            host._hold()
            host._save()
        try:
            host._assemble(base)
            host.boot()
            if keep:
                # Only now: a kept host that was never finished would stay for ever.
                host._record["kept"] = True
                host._save()
                host._release()
        except BaseException:
            host.remove()
            raise
        return host

    @classmethod
    def find(cls, name: str) -> "Host":
        """
        A host that some process made.

        Raises HostError when there is none of that name.
        """
        for host in all_hosts():
            if host.name == name:
                return host
        raise HostError(f"there is no host named {name!r}")

    @staticmethod
    def tag() -> str:
        """A few letters that no other name has."""
        return uuid.uuid4().hex[:6]

    def _hold(self) -> None:
        self._owner_lock = open(self.folder / "owner", "w", encoding="utf-8")
        fcntl.flock(self._owner_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shared_locks.add(self._owner_lock.fileno())

    def _release(self) -> None:
        if self._owner_lock is not None:
            shared_locks.discard(self._owner_lock.fileno())
            self._owner_lock.close()
            self._owner_lock = None

    def _abandon(self) -> None:
        """Wait until nothing that its dead owner started still works on it."""
        deadline = time.monotonic() + 30
        while (self.folder / "owner").exists():
            with open(self.folder / "owner", encoding="utf-8") as stream:
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise HostError(
                            f"somebody still works on the abandoned host {self.name}"
                        ) from None
            time.sleep(0.01)

    def _save(self) -> None:
        half = self.folder / ".state.json"
        half.write_text(json.dumps(self._record, indent=1), "utf-8")
        half.rename(self.folder / "state.json")

    def owned(self) -> bool:
        """Whether the process that made it still lives (a kept host has no owner)."""
        if self.kept:
            return False
        if self._record["boot"] != _boot_id():
            return False
        if _started(self._record["owner"]) != self._record["owner_started"]:
            return False
        try:
            with open(self.folder / "owner", encoding="utf-8") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
        return False

    def _assemble(self, base: pathlib.Path) -> None:
        for part in ("upper", "work", "root"):
            (self.folder / part).mkdir()
        # volatile: nothing here has to survive this machine, so its disk is not waited for.
        layers = f"lowerdir={base},upperdir={self.folder}/upper,workdir={self.folder}/work"
        run("mount", "-t", "overlay", "-o", f"{layers},volatile", "overlay", self.root)
        self._record["address"] = network.connect(self._namespace, self._record["slot"])
        self._save()
        etc = self.root / "etc"
        servers = "".join(f"nameserver {server}\n" for server in outer.name_servers())
        (etc / "resolv.conf").unlink(missing_ok=True)
        (etc / "resolv.conf").write_text(servers, "utf-8")
        (etc / "hostname").write_text(f"{self.name}\n", "utf-8")
        (etc / "hosts").write_text(
            f"127.0.0.1\tlocalhost\n{self.address}\t{self.name}\n::1\tlocalhost ip6-localhost\n",
            "utf-8",
        )
        (etc / "machine-id").write_text(f"{uuid.uuid4().hex}\n", "utf-8")
        (etc / "pip.conf").write_text(outer.pip_conf(), "utf-8")
        # A mirror that stalls once is no failed test.
        (etc / "apt/apt.conf.d/80retries").write_text('Acquire::Retries "5";\n', "utf-8")
        self._prepare()

    def _prepare(self) -> None:
        """What a kind of host does to its file system before the first boot."""

    def boot(self, timeout: float = 90) -> None:
        """
        Boot it, until its systemd has started everything.

        timeout
            seconds that it may take

        Raises HostError with the console's last lines when it does not come up.
        """
        groups = cgroup.create(self.name)
        command = [
            *cgroup.unified(),
            "systemd-nspawn",
            "--quiet",
            "--register=no",
            "--keep-unit",
            f"--machine={self.name}",
            f"--directory={self.root}",
            "--boot",
            f"--network-namespace-path=/run/netns/{self._namespace}",
            "--resolv-conf=off",
            "--timezone=off",
            "--link-journal=no",
        ]
        for source, target in self._record["binds"]:
            writable = target.endswith(":rw")
            option = "--bind" if writable else "--bind-ro"
            command.append(f"{option}={source}:{target.removesuffix(':rw')}")
        with open(self.folder / "console.log", "ab") as console:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _JOIN, "sh", *map(str, groups), "--", *command],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env={
                    **environment(),
                    "SYSTEMD_NSPAWN_LOCK": "0",
                    "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
                },
                start_new_session=True,
            )
        pid = self._process.pid
        self._record["nspawn"] = [pid, _started(pid)]
        self._save()
        deadline = time.monotonic() + timeout
        said = "nothing"
        while time.monotonic() < deadline:
            if not self.alive():
                self._give_up("stopped while booting")
            if self._leader() is not None:
                done = self.run("systemctl", "is-system-running", check=False)
                said = done.stdout.strip() or done.stderr.strip()
                if said in ("running", "degraded"):
                    return
            time.sleep(0.02)
        self._give_up(f"did not boot within {timeout:g} s (systemd said: {said})")

    def _give_up(self, what: str) -> NoReturn:
        console = (self.folder / "console.log").read_text("utf-8", errors="replace")
        raise HostError(f"the host {self.name} {what}; its console ends with:\n{console[-1500:]}")

    def alive(self) -> bool:
        """Whether its systemd-nspawn runs."""
        if self._process is not None and self._process.poll() is not None:
            return False
        if self._record["nspawn"] is None or self._record["boot"] != _boot_id():
            return False
        pid, started = self._record["nspawn"]
        return _started(pid) == started

    def _leader(self) -> int | None:
        """The host's PID 1, as this machine numbers it."""
        pid = self._record["nspawn"][0]
        try:
            text = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii")
        except (FileNotFoundError, ProcessLookupError):
            return None
        for child in map(int, text.split()):
            try:
                status = pathlib.Path(f"/proc/{child}/status").read_text("utf-8")
            except (FileNotFoundError, ProcessLookupError):
                continue
            ids = re.search(r"^NSpid:\s*(.*)$", status, re.MULTILINE)
            name = status.splitlines()[0].split()[-1]
            if ids and ids[1].split()[-1] == "1" and len(ids[1].split()) > 1 and name == "systemd":
                return child
        return None

    def shutdown(self) -> None:
        """
        Power it off, as its owner would.

        Raises HostError when it is not off within 60 seconds.
        """
        self._stop("poweroff")

    def _stop(self, how: str) -> None:
        self.run("systemctl", "--no-block", how)
        deadline = time.monotonic() + 60
        while self.alive():
            if time.monotonic() > deadline:
                self._give_up(f"did not {how} within 60 s")
            time.sleep(0.02)
        cgroup.destroy(self.name)

    def reboot(self, timeout: float = 90) -> None:
        """Shut it down properly and boot it again from the same file system, as ``boot`` does."""
        self._stop("reboot")
        self.boot(timeout)

    def crash(self) -> None:
        """Pull the plug: every process dies at once; ``boot()`` starts it again."""
        cgroup.destroy(self.name)
        if self._process is not None:
            self._process.wait(timeout=20)

    def unplug(self) -> None:
        """Cut it off the network; it goes on, and nobody reaches it."""
        network.plug(self._record["slot"], "down")

    def plug_in(self) -> None:
        """Give it its network back."""
        network.plug(self._record["slot"], "up")

    def wait(self) -> None:
        """Wait until it is powered off."""
        while self.alive():
            time.sleep(0.5)

    def remove(self) -> None:
        """Take it away with all that belongs to it, in whatever condition it is."""
        cgroup.destroy(self.name)
        if self._process is not None:
            self._process.wait(timeout=20)
        network.disconnect(self._namespace, self._record["slot"])
        for _ in range(50):
            if not os.path.ismount(self.root):
                break
            done = run("umount", self.root, check=False)
            if done.returncode:
                # The kernel is still tearing down the mounts of the processes just killed.
                time.sleep(0.05)
        else:
            raise HostError(f"{self.root} cannot be unmounted")
        for left in ("propagate", "unix-export"):
            with contextlib.suppress(OSError):
                os.rmdir(f"/run/systemd/nspawn/{left}/{self.name}")
        # The record goes last: a removal that is killed half way is taken up again.
        for part in ("root", "work", "upper"):
            if (self.folder / part).exists():
                shutil.rmtree(self.folder / part)
        # Once the record is gone another process may sweep the directory at the same time: clean().
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.folder)
        self._release()

    def __enter__(self: _H) -> _H:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    # -- doing things in it

    def enter(self) -> list[str]:
        """The words before a command that make it run inside, as root, in a clean environment."""
        leader = self._leader()
        if leader is None:
            self._give_up("is not running")
        environ = [f"PATH={_PATH}", "HOME=/root", "LANG=C.UTF-8", "TERM=dumb"]
        enter = ["nsenter", "-t", str(leader), "-m", "-p", "-u", "-i", "-n", "-C", "-r", "-w"]
        groups = _cgroups_of(leader)
        return ["/bin/sh", "-c", _JOIN, "sh", *groups, "--", *enter, "--", "env", "-i", *environ]

    def run(
        self,
        *argv: str | os.PathLike[str],
        check: bool = True,
        timeout: float = 120,
        input: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """
        Run a command inside, as root.

        argv
            a program and its arguments; a single string is given to bash
        check
            raise CommandFailed, with the output, when it does not end with 0
        timeout
            seconds
        input
            what to feed to it
        """
        words = [os.fspath(word) for word in argv]
        if len(words) == 1:
            words = ["bash", "-c", words[0]]
        shown = shlex.join(words)
        process = subprocess.Popen(
            [*self.enter(), *words],
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment(),
            start_new_session=True,
        )
        try:
            stdout, stderr = process.communicate(input, timeout=timeout)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                raise HostError(
                    f"`{shown}` did not end within {timeout:g} s on {self.name}"
                ) from None
            raise
        done = subprocess.CompletedProcess(words, process.returncode, stdout, stderr)
        if check and done.returncode:
            raise CommandFailed(
                f"`{shown}` ended with {done.returncode} on {self.name}:\n{stdout}{stderr}", done
            )
        return done

    def install(self, *packages: str, recommends: bool = True, timeout: float = 600) -> None:
        """
        Install packages of the distribution, as an operator does: a fresh host has no lists of apt.

        packages
            their names
        recommends
            with those that they recommend
        timeout
            seconds
        """
        options = [] if recommends else ["--no-install-recommends"]
        script = 'apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y install "$@"'
        self.run("sh", "-c", script, "sh", *options, *packages, timeout=timeout)

    def execute(self, *argv: str) -> int:
        """Run a command inside with this process's own input and output; returns its exit code."""
        return subprocess.run([*self.enter(), *argv], env=environment(), check=False).returncode

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file inside; its directory is made when missing."""
        script = 'mkdir -p "${1%/*}/" && umask 077 && cat > "$1" && chmod "$2" "$1"'
        self.run("sh", "-c", script, "sh", path, f"{mode:o}", input=text)

    def read(self, path: str) -> str:
        """The content of a file inside."""
        return self.run("cat", "--", path).stdout

    def exists(self, path: str) -> bool:
        """Whether something, a dangling link too, is at a path inside."""
        return self.run("test", "-e", path, "-o", "-L", path, check=False).returncode == 0

    def get(
        self, path: str = "/", host_header: str | None = None, port: int = 80, timeout: float = 30
    ) -> tuple[int, dict[str, str], bytes]:
        """
        Ask the host's web server from outside.

        Returns (status, headers with lower-case names, body). Raises OSError when nobody answers.
        """
        connection = http.client.HTTPConnection(self.address, port, timeout=timeout)
        try:
            connection.request("GET", path, headers={"Host": host_header or self.address})
            answer = connection.getresponse()
            headers = {key.lower(): value for key, value in answer.getheaders()}
            return answer.status, headers, answer.read()
        finally:
            connection.close()

    # -- Salt in it

    def salt_config(self, salt: str = "3008") -> str:
        """
        The minion configuration directory of a Salt version inside, written when missing:
        masterless, with the checkout and ``/srv/salt`` as its files, ``/srv/pillar`` as its pillar.
        """
        folder = f"/etc/salt-{salt}"
        if not (self.root / folder[1:] / "minion").exists():
            config = {
                "id": self.name,
                "file_client": "local",
                "root_dir": f"/var/lib/salt-{salt}",
                "conf_file": f"{folder}/minion",
                "cachedir": "/cache",
                "extension_modules": "/cache/extmods",
                "pki_dir": "/pki",
                "sock_dir": "/sock",
                "log_file": "/log",
                "pidfile": "/salt-minion.pid",
                "file_roots": {"base": ["/srv/formula", "/srv/salt"]},
                "pillar_roots": {"base": ["/srv/pillar"]},
                "file_ignore_regex": NOT_THE_FORMULA,
                "log_level_logfile": "warning",
                "enable_fqdns_grains": False,
            }
            self.run("mkdir", "-p", "/srv/salt", "/srv/pillar", f"/var/lib/salt-{salt}")
            self.write(f"{folder}/minion", json.dumps(config, indent=1))
        return folder

    def set_pillar(self, pillar: dict[str, Any]) -> None:
        """Make this the whole pillar of the host's masterless runs, until it is set again."""
        self.write("/srv/pillar/top.sls", '{"base": {"*": ["whole"]}}\n')
        self.write("/srv/pillar/whole.sls", f"#!json\n{json.dumps(pillar)}\n", mode=0o600)

    def salt_run(
        self,
        function: str,
        *args: Any,
        salt: str = "3008",
        pillar: dict[str, Any] | None = None,
        test: bool = False,
        cold: bool = False,
        timeout: float = 600,
        **kwargs: Any,
    ) -> subprocess.CompletedProcess[str]:
        """
        Run ``salt-call --local`` and return what it printed; the arguments are ``salt_call``'s.
        """
        from .salts import program

        folder = self.salt_config(salt)
        if pillar is not None:
            self.set_pillar(pillar)
        if cold:
            self.run("rm", "-rf", f"/var/lib/salt-{salt}/cache")
        words = [_argument(value) for value in args]
        if test:
            kwargs["test"] = True
        words += [f"{key}={_argument(value)}" for key, value in kwargs.items()]
        return self.run(
            program(salt, "salt-call"),
            "--local",
            f"--config-dir={folder}",
            "--out=json",
            "--out-indent=-1",
            "--retcode-passthrough",
            "--log-level=warning",
            function,
            *words,
            check=False,
            timeout=timeout,
        )

    def salt_call(self, function: str, *args: Any, **kwargs: Any) -> Any:
        """
        Call an execution function masterless and return what it returned.

        function, args, kwargs
            as on Salt's command line; any JSON value will do
        salt
            ``3006``, ``3007`` or ``3008``
        pillar
            the whole pillar from now on; None leaves what was there
        test
            a dry run
        cold
            empty Salt's cache first, so that custom modules have to reach the host anew

        Raises CommandFailed with Salt's own words when the function raised.
        """
        done = self.salt_run(function, *args, **kwargs)
        try:
            return json.loads(done.stdout)["local"]
        except (ValueError, KeyError, TypeError):
            raise CommandFailed(
                f"`salt-call {function}` ended with {done.returncode} on {self.name}:\n"
                f"{done.stdout}{done.stderr}",
                done,
            ) from None

    def apply(
        self,
        sls: str = "nginx_uwsgi_django",
        pillar: dict[str, Any] | None = None,
        test: bool = False,
        salt: str = "3008",
        cold: bool = False,
        timeout: float = 600,
        **kwargs: Any,
    ) -> StateRun:
        """
        Apply states masterless; the parameters are ``salt_call``'s.

        A run that fails is returned, not raised: look at ``ok``, ``failed`` and ``errors``.
        """
        done = self.salt_run(
            "state.apply",
            sls,
            pillar=pillar,
            test=test,
            salt=salt,
            cold=cold,
            timeout=timeout,
            **kwargs,
        )
        try:
            return StateRun(json.loads(done.stdout)["local"], done.stderr)
        except (ValueError, KeyError, TypeError):
            raise CommandFailed(
                f"`state.apply {sls}` ended with {done.returncode} on {self.name}:\n"
                f"{done.stdout}{done.stderr}",
                done,
            ) from None


def _argument(value: Any) -> str:
    """A value for Salt's command line, which reads every word as YAML."""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z/][A-Za-z0-9_./@-]*", value):
        if value.lower() not in ("true", "false", "yes", "no", "on", "off", "null", "none"):
            return value
    # Salt takes a word with a # in it for a plain string.
    return json.dumps(value).replace("#", "\\u0023")


def all_hosts() -> list[Host]:
    """Every host that is recorded on this machine."""
    found = []
    for path in sorted((cache() / "hosts").glob("*/state.json")):
        with contextlib.suppress(FileNotFoundError):
            found.append(Host(json.loads(path.read_text("utf-8"))))
    return found


def clean() -> list[str]:
    """
    Remove the hosts whose owner is dead; kept ones stay.

    Returns the names of the removed.
    """
    removed = []
    with lock("hosts"):
        for host in all_hosts():
            if not host.kept and not host.owned():
                host._abandon()
                host.remove()
                removed.append(host.name)
        known = {host.folder.name for host in all_hosts()}
        folder = cache() / "hosts"
        for path in folder.iterdir() if folder.is_dir() else ():
            # Killed between making the directory and writing the record: nothing else is there.
            # Or its owner is about to remove it.
            if path.name not in known:
                with contextlib.suppress(FileNotFoundError):
                    shutil.rmtree(path)
    # After the hosts, which may have been working in them.
    sweep()
    return removed
