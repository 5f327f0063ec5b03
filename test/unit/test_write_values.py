"""
What is written as root: who may write at all, and that no link is followed where the site's user
can put one.
"""

import ast
import os
import pathlib
import stat
from collections.abc import Iterator

import pytest
from salt.exceptions import CommandExecutionError

from _nud import release_files

from ..hosts.paths import FORMULA

# Every function that makes, moves, links or gives away something on the host, and why it may.
# Anything else goes through durable_file: atomic, flushed, with owner and mode before it is seen.
WRITERS = {
    "_nud_durable_file": {"flush_directory", "write", "link", "directory", "remove"},
    # In a directory of a name that nobody can guess, made for it, 0700 and root's, and removed.
    "deb822_source": {"_try", "_refresh", "_has_suite"},
    "_nud_release_files": {
        "make_inside",  # by descriptors, each opened with O_NOFOLLOW
        "copy_file",  # O_EXCL and O_NOFOLLOW, in a directory that root has just made
        "copy",  # renames that directory into its place, flushed
    },
    # The site's user runs it, in the directories that are the site's own.
    "_nud_django_driver": {"put", "publish", "merge_uploads"},
    "django_preparation": {"_take_out"},  # renames a part of a release of root's aside
    "release_live": {"_discard"},  # renames a release of root's aside to remove it
    # Jinja's own, below this minion's cache, in a directory of root's, 0700.
    "nginx_site": {"dump_bytecode"},
    # Downloads, in a directory of root's that is made for them; an operator's own policy-rc.d, put
    # aside and back.
    "nginx_package": {"_guarded", "_staged", "_unguard"},
    # The tree that is made beside nginx's, of hard links and of files by O_EXCL and O_NOFOLLOW.
    "_nud_nginx_swap": {"_renameat2", "_place", "_stage", "_exchange", "one_by_one", "alone"},
    # By descriptors of directories, reached without following a link.
    "nginx_temporary": {"shared", "share", "settled", "settle"},
    "python_venv": {"_hand_over"},  # by descriptors; links themselves, not what they lead to
    "release_record": {"alone"},  # by O_NOFOLLOW, in a directory of root's
    # Below this minion's own cache, in a directory of root's, 0700; what a source says is written
    # by O_EXCL and O_NOFOLLOW, links last.
    "release_source": {
        *("__init__", "_download", "_from_archive", "_from_git", "_kept"),
        *("_make_links", "_memory", "_put", "_read_commit"),
    },
    "_nud_pyproject_reader": {"main"},  # pip's own Python runs it, into the file that it is given
    "_nud_process_pool": {"_work"},  # into a pipe
    "_nud_certbot": {"is_running"},  # takes certbot's own lock, and writes nothing
    "system_account": {"adopt", "regroup"},  # the same
    "takeover": {"_move"},  # a socket, by a descriptor of its directory
    # By O_NOFOLLOW, in a directory of root's: a file that stays the same one, see there.
    "uwsgi_log": {"ensure"},
    "_nud_unix_socket": {"set_owner"},  # by a descriptor of the socket itself
}
CALLS = {
    *(f"os.{name}" for name in ("mkdir", "makedirs", "mknod", "mkfifo", "symlink", "link")),
    *(f"os.{name}" for name in ("rename", "renames", "replace", "truncate")),
    *(f"os.{name}" for name in ("chown", "lchown", "fchown", "chmod", "lchmod", "fchmod")),
    *(f"shutil.{name}" for name in ("copy", "copy2", "copyfile", "copytree", "move", "chown")),
    *(f"tempfile.{name}" for name in ("mkstemp", "mkdtemp", "TemporaryDirectory")),
    *(f"tempfile.{name}" for name in ("NamedTemporaryFile", "TemporaryFile", "mktemp")),
}


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def writes(call: ast.Call) -> bool:
    name = dotted(call.func)
    text = ast.unparse(call)
    if name in CALLS or name.endswith((".write_text", ".write_bytes", ".touch", "._renameat2")):
        return True
    if name == "os.open":
        return "O_CREAT" in text or "O_WRONLY" in text or "O_RDWR" in text
    if name in ("open", "io.open"):
        modes = [ast.unparse(one) for one in call.args[1:2]]
        modes += [ast.unparse(one.value) for one in call.keywords if one.arg == "mode"]
        return any(set("wax+") & set(mode.strip("'\"")) for mode in modes)
    return False


def writers(path: pathlib.Path) -> Iterator[str]:
    """The functions of a module that write, by their names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            for one in ast.walk(node):
                if isinstance(one, ast.Call) and writes(one):
                    yield node.name


@pytest.mark.parametrize("folder", ["_modules", "_states"])
def test_nobody_else_writes(folder: str) -> None:
    found = {
        path.stem: set(writers(path))
        for path in sorted((FORMULA / folder).glob("*.py"))
        if set(writers(path))
    }
    allowed = WRITERS if folder == "_modules" else {}
    assert {
        module: sorted(names - allowed.get(module, set()))
        for module, names in found.items()
        if names - allowed.get(module, set())
    } == {}


# The site's account: numbers that the test machine surely does not use.
OWNER = (54321, 54321)


def rows(folder: pathlib.Path) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    for path in sorted([folder, *folder.rglob("*")]):
        seen = os.lstat(path)
        found.append((str(path), seen.st_mode, seen.st_uid, seen.st_gid, seen.st_ctime_ns))
    return found


@pytest.mark.parametrize("link", ["static", "static/deep", "static/deep/er"])
@pytest.mark.parametrize("target", ["folder", "file", "missing"])
def test_a_directory_of_a_sites_is_made_through_no_link(
    tmp_path: pathlib.Path, link: str, target: str
) -> None:
    victim, home = tmp_path / "victim", tmp_path / "home"
    (victim / "folder").mkdir(parents=True)
    (victim / "file").write_text("root's\n")
    (home / link).parent.mkdir(parents=True)
    (home / link).symlink_to(victim / target)
    before = rows(victim)
    with pytest.raises(CommandExecutionError, match="is to be a directory of the site's"):
        release_files.make_inside(str(home), "static/deep/er", 0o755, OWNER)
    assert rows(victim) == before


def test_a_directory_of_a_sites_is_the_sites_from_the_first_moment(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it has its owner nobody but root may enter it."""
    seen = []
    real = os.fchown

    def spied(handle: int, uid: int, gid: int) -> None:
        seen.append(stat.S_IMODE(os.fstat(handle).st_mode))
        real(handle, uid, gid)

    monkeypatch.setattr(os, "fchown", spied)
    old = os.umask(0)
    try:
        release_files.make_inside(str(tmp_path), "media", 0o755, OWNER)
    finally:
        os.umask(old)
    assert seen[0] == 0o700
    made = os.lstat(tmp_path / "media")
    assert (made.st_uid, made.st_gid, stat.S_IMODE(made.st_mode)) == (54321, 54321, 0o755)
