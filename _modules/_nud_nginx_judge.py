"""
What nginx says of a future configuration tree, before a byte of the live one changes.

It is unpacked on a tmpfs mounted over the tree in a mount namespace of its own, so that every path is
the real one. The directories that ``nginx -t`` would write to are covered in the same way.
"""

import contextlib
import io
import os
import posixpath
import re
import resource
import subprocess
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from salt.exceptions import CommandExecutionError

from _nud_nginx_archive import pack, pack_directories
from _nud_nginx_files import COMMON, Raced, Wanted, digest_of, future, live, text_of
from _nud_nginx_inputs import Memory, outside
from _nud_nginx_language import Directive, directives
from _nud_nginx_program import ENVIRONMENT, TIMEOUT, compiled, find, identity

# In the memory of a run: the trees that nginx has accepted in it.
_ACCEPTED = "nginx_tree.accepted"


# Runs in the private mount namespace.  "staged" tells nginx's own failure from one before it.  Few
# programs: that each is started takes as long as nginx needs for a dozen sites.
_MODULES = "/usr/lib/nginx/modules"
_TEST_SCRIPT = """
nginx=$1 modules=$2; shift 2
[ -z "$modules" ] || mount --bind "$modules" MODULES || exit 1
while [ "$1" != -- ]; do
    mount -t tmpfs -o mode=0755 nginx_tree "$1" || exit 1
    shift
done
shift
tar -x -p --numeric-owner -f - -C / || exit 1
echo staged
exec "$nginx" -t "$@"
""".replace("MODULES", _MODULES)


class Verdict(NamedTuple):
    """What nginx says of a future tree."""

    tested: bool  # False: this host does not let a mount namespace be made
    ok: bool
    output: str  # nginx's words, or why there was no test
    master: int | None  # the running nginx
    parsed: dict[str, list[Directive]]  # what the future tree says, by path


def limits_of(service: Mapping[str, str]) -> tuple[int, int] | None:
    """
    How many files the tested nginx may open.

    A reload opens every log of the new configuration while those of the old one are still open:
    what the running master has open is not there to be used. A test in a root's shell knows
    neither, and accepts a configuration that the reload then silently drops.

    service
        what systemd says of nginx's unit

    Returns the soft and the hard limit; None where they are not known.
    """
    pid = service.get("MainPID", "0")
    if pid.isdigit() and int(pid):
        with contextlib.suppress(OSError):
            soft, hard = resource.prlimit(int(pid), resource.RLIMIT_NOFILE)
            used = len(os.listdir(f"/proc/{pid}/fd"))
            if soft != resource.RLIM_INFINITY:
                # Its listening sockets are taken over, the test opens them again; 8 is for what
                # any nginx has open before it reads a line.
                soft = max(16, soft - used + 8)
            return soft, hard
    soft_text, hard_text = service.get("LimitNOFILESoft", ""), service.get("LimitNOFILE", "")
    if soft_text.isdigit() and hard_text.isdigit():
        return int(soft_text), int(hard_text)
    return None


def _global_directives(service: Mapping[str, str]) -> list[str]:
    """The unit's own ``-g``: a directive given there and in nginx.conf is a duplicate."""
    found = re.search(
        r"argv\[\]=\S+ (?:.* )?-g (.*?) ; ignore_errors=", service.get("ExecStart", "")
    )
    return ["-g", found.group(1)] if found else []


def _covered(every: list[Directive], paths: dict[str, str], prefix: str) -> list[str]:
    """
    The directories that ``nginx -t`` would write to.

    It makes temporary and cache directories and gives them to the configured user
    (ngx_create_paths()): with a new user that takes them away from the workers that run.
    It also creates each log file that is not there.
    """
    found = {path for name, path in paths.items() if name.startswith("http-") and "temp" in name}
    logs = {path for name, path in paths.items() if name.endswith("log-path")}
    for directive in every:
        name = directive.words[0]
        if len(directive.words) > 1:
            if name.endswith(("_temp_path", "_cache_path")):
                found.add(directive.words[1])
            elif name in ("access_log", "error_log"):
                logs.add(directive.words[1])
    found |= {os.path.dirname(path) for path in logs if path.startswith("/")}
    absolute = {os.path.realpath(os.path.join(prefix, path)) for path in found}
    never = {"/", "/dev", "/proc", "/sys", "/run", "/tmp", "/var", "/etc", "/usr", "/srv", "/home"}
    covered = {path for path in absolute - never if os.path.isdir(path)}
    # To cover one starts a program: /var/lib/nginx once for all of them, where nothing else is in it.
    alone = set()
    for above in {os.path.dirname(path) for path in covered} - never:
        inside = {os.path.join(above, name) for name in os.listdir(above)}
        if len(inside) > 1 and inside <= covered:
            alone.add(above)
    return _outermost(covered | alone)


def _outermost(paths: Iterable[str]) -> list[str]:
    """Those of some directories that are in no other of them."""
    chosen: list[str] = []
    for path in sorted(paths):
        if not any(path == above or path.startswith(above + "/") for above in chosen):
            chosen.append(path)
    return chosen


def judge(
    base: str,
    due: dict[str, Wanted],
    service: Mapping[str, str],
    memory: Memory,
    binary: str | None = None,
    modules: str | None = None,
) -> Verdict:
    """
    Let nginx test the future tree where it will be.

    base
        the directory of the tree
    due
        the change
    service
        ``LimitNOFILESoft``, ``LimitNOFILE``, ``ExecStart`` and ``MainPID`` of nginx's unit; empty
        where systemd does not answer (a chroot in which an image is built): this process's own
        limits then count
    memory
        what is known in this run of Salt (``__context__``): a tree that is accepted is noted there
    binary, modules
        another nginx than the installed one, and the directory of its modules

    Returns a Verdict.

    Raises CommandExecutionError when nginx is not installed, or gives no answer.
    """
    binary = binary or find()
    if binary is None:
        raise CommandExecutionError("nginx is not installed")
    paths = compiled(binary)
    prefix = paths.get("prefix", "/usr/share/nginx")
    read_elsewhere, tree = outside(base, memory), future(base, due)
    parsed = {
        path: directives(text_of(entry.contents))
        for path, entry in tree.items()
        if 0 < len(entry.contents) < 4 << 20
    }
    every = [directive for found in parsed.values() for directive in found]
    # The tree itself has all that is in it.
    covered = _outermost([base, *_covered(every, paths, prefix)])
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.GNU_FORMAT) as packed:
        pack(packed, base, tree, due, base.lstrip("/"))
        for path in covered:
            if path != base:
                pack_directories(packed, path)
    pid_files = [d.words[1] for d in every if d.words[0] == "pid" and len(d.words) > 1]
    pid_file = os.path.join(prefix, (pid_files or [paths.get("pid-path", "/run/nginx.pid")])[0])
    command = ["unshare", "--mount", "--propagation", "private", "--"]
    bound = modules if modules and os.path.isdir(_MODULES) else ""
    command += ["sh", "-c", _TEST_SCRIPT, "sh", binary, bound, *covered, "--"]
    command += _global_directives(service)
    with _without_new(pid_file):
        code, staged, output = _tested(command, archive.getvalue(), limits_of(service))
    master = int(service.get("MainPID") or 0) or None
    if not staged:
        return Verdict(False, False, output or f"exit code {code}", master, parsed)
    if code == 0 and not modules:
        key = (binary, digest_of(tree))
        memory.setdefault(_ACCEPTED, {})[key] = (identity(binary), read_elsewhere)
    return Verdict(True, code == 0, output, master, parsed)


@contextlib.contextmanager
def _without_new(pid_file: str) -> Iterator[None]:
    """``nginx -t`` creates an empty pid file where there is none: it is removed afterwards."""
    existed = os.path.lexists(pid_file)
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            if not existed and os.lstat(pid_file).st_size == 0:
                os.unlink(pid_file)


def _tested(
    command: list[str], archive: bytes, limits: tuple[int, int] | None
) -> tuple[int, bool, str]:
    """The test's exit code, whether it came to nginx, and what was printed."""
    with subprocess.Popen(
        command,
        cwd="/",
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        if limits:
            # Now, while it waits for the archive: later it is nginx.
            with contextlib.suppress(ProcessLookupError, PermissionError, ValueError):
                resource.prlimit(process.pid, resource.RLIMIT_NOFILE, limits)
        try:
            stdout, stderr = process.communicate(archive, timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise CommandExecutionError(f"nginx -t gave no answer within {TIMEOUT} s") from None
    printed = stderr.decode("utf-8", "replace").strip()
    return process.returncode, stdout.startswith(b"staged"), printed


def accepted(base: str, memory: Memory) -> bool:
    """
    Whether the installed nginx has accepted, in this run, exactly the tree that is on the disk, and
    what it reads from elsewhere was not changed since.

    base
        the directory of the tree
    memory
        as in :py:func:`judge`

    Returns True or False.
    """
    binary, known = find(), memory.get(_ACCEPTED)
    if not known or binary is None:
        return False
    try:
        tree = live(base)
    except (Raced, FileNotFoundError):
        return False
    judged = known.get((binary, digest_of(tree)))
    return bool(judged == (identity(binary), outside(base, memory)))


def messages(output: str) -> tuple[list[str], list[str]]:
    """
    The errors and warnings of ``nginx -t``.

    output
        everything that it printed

    Returns two lists of lines, without nginx's name and its two lines of good news.
    """
    errors, warnings = [], []
    for line in output.splitlines():
        # Before its log is open nginx writes to the terminal, after that as it would to the log.
        line = re.sub(r"^nginx: ", "", line.strip())
        line = re.sub(r"^[\d/]+ [\d:]+ (\[\w+\]) \d+#\d+: ", r"\1 ", line)
        good_news = re.search(r"syntax is ok$|test is successful$|test failed$", line)
        if not line or good_news or line in errors or line in warnings:
            continue
        if line.startswith(("[warn]", "[notice]", "[info]")):
            warnings.append(line)
        else:
            errors.append(line)
    return errors, warnings


def _raw(lines: list[str], line: int) -> str:
    """The raw text of the pillar that a line of a file stands in: its path and line there."""
    for number in range(min(line, len(lines)) - 1, -1, -1):
        if lines[number].startswith("# The end of ") and number < line - 1:
            return ""
        begins = re.fullmatch(r"# As it stands in the pillar: (\S+)", lines[number])
        if begins:
            return f"{begins.group(1)}, line {line - number - 1}: {lines[line - 1].strip()}"
    return ""


def _origin(plan: dict[str, Wanted], files: set[str], path: str, line: int) -> str:
    """Whose a line of a file of the tree is, in the words of the pillar."""
    name = posixpath.basename(path)
    own = f"sites-available/{name}"
    if posixpath.dirname(path) in ("sites-enabled", "sites-available") and own in files:
        lines = plan[own].contents.decode().splitlines()
        raw = _raw(lines, line)
        if raw:
            return f"from the pillar's {raw}"
        quoted = f", line {line}: {lines[line - 1].strip()}" if line <= len(lines) else ""
        return f"from the pillar's sites:{name[: -len('.conf')]}{quoted}"
    if path == COMMON and COMMON in files:
        raw = _raw(plan[COMMON].contents.decode().splitlines(), line)
        return f"from the pillar's {raw}" if raw else "a file of the formula"
    if path == "nginx.conf" and "nginx.conf" in files:
        return "nginx.conf; of it the formula writes only `user`: nginx:user"
    return "a file that is not the formula's"


def whose(base: str, shown: str, plan: dict[str, Wanted], user: str, message: str) -> str:
    """
    A message of nginx, with the path of the pillar that it is about.

    base, shown
        the directory of the tree, without links and as the pillar names it
    plan
        what is to be where
    user
        ``nginx:user`` of the pillar
    message
        nginx's

    Returns a sentence.
    """
    files = {path for path, wanted in plan.items() if wanted.kind == "file"}
    place = re.search(r" in (\S+?):(\d+)$", message)
    if place:
        path = place.group(1)
        for prefix in (shown, base):
            path = path.removeprefix(prefix + "/")
        return f"{message} ({_origin(plan, files, path, int(place.group(2)))})"
    for quoted in re.findall(r'"([^"]+)"', message):
        sites = [
            path[len("sites-available/") : -len(".conf")]
            for path in files
            if path.startswith("sites-available/") and quoted.encode() in plan[path].contents
        ]
        if len(sites) == 1:
            return f"{message} (from the pillar's sites:{sites[0]})"
        if quoted == user:
            return f"{message} (from the pillar's nginx:user)"
    return message
