"""
A symbolic link planted at each path that a run writes is never followed: what it leads to stays as
it is, and the run replaces the link or says where it found it.
"""

import copy
import os
import re

import pytest
import yaml

from test.functional.nginx_host import salt_words
from test.hosts import pebble
from test.hosts.host import Host
from test.hosts.paths import FORMULA

pytestmark = pytest.mark.long

NAME = "www.example.org"
PILLAR = yaml.safe_load((FORMULA / "pillar.example").read_text())
HASHED = "$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1"
CALLS = (
    *(
        "openat",
        "creat",
        "rename",
        "renameat",
        "renameat2",
        "symlink",
        "symlinkat",
        "mkdir",
        "mkdirat",
        "bind",
    ),
)
# What Salt itself, and the tools of the distribution and of Python, write: not the formula's.
THEIRS = re.compile(
    "/(dev|proc|sys|tmp|usr|boot|var/(cache|lib/(salt-|apt|dpkg|systemd|ucf)|tmp|log/(salt|apt|dpkg))"
    "|opt/salt|etc/(apt|alternatives|letsencrypt|ssl|salt|group|passwd|g?shadow|sub[ug]id|\\.pwd)"
    "|run/(systemd/(?!system)|dbus)|memfd|pipe:|socket:)|anon_inode"
)


def written(trace: str) -> tuple[list[str], list[str]]:
    """
    The files and the directories that the run itself wrote, by its trace; of what has another name
    each time (a temporary file), nothing.
    """
    files, folders, main = {}, {}, ""
    for line in trace.splitlines():
        seen = re.match(r"(\d+) +(\w+)\((.*)\) += (\d+|-1 EEXIST)", line)
        if not seen or seen[2] not in CALLS:
            continue
        pid, call, words, _ = seen.groups()
        main = main or pid
        if pid != main or (call == "openat" and not re.search("O_CREAT|O_TRUNC", words)):
            continue
        # What is opened below a descriptor, then what stands alone; the last is what is made.
        pairs = re.findall(r'(?:\d+|AT_FDCWD)<([^>]*)>, "([^"]*)"|"([^"]*)"', words)
        if not pairs:
            continue
        place, below, alone = pairs[-1]
        path = alone or (below if below.startswith("/") else f"{place}/{below}")
        (folders if call.startswith("mkdir") else files)[path] = None
    temporary = re.compile(r"\.durable-\w+$|/\.nginx_uwsgi_django-\w+(/|$)")
    answer = []
    for found in (files, folders):
        # The tree that takes the place of nginx's.
        paths = [re.sub(r"^/etc/\.nginx_uwsgi_django-\w+", "/etc/nginx", path) for path in found]
        answer.append(
            [
                path
                for path in dict.fromkeys(paths)
                if path.startswith("/")
                and not THEIRS.match(path)
                and not temporary.search(path)
                # A release, or a virtual environment, is filled after it was made anew.
                and not re.search(r"\.partial/|/venvs/\w+/\w+/(?!\.complete)", path)
                # A copy of what is there.
                and path.rstrip("/") != "/etc/nginx"
                and not (found is folders and path.startswith("/etc/nginx/"))
            ]
        )
    return answer[0], answer[1]


class Links:
    """Links on a host, each to a file or a directory of its own, and what those are like."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.targets: dict[str, str] = {}
        self.before = ""

    def plant(self, paths: list[str], folders: set[str]) -> None:
        """A link at each path; what is there is kept aside."""
        self.targets = {path: f"/root/targets/{n}" for n, path in enumerate(paths)}
        script = ["set -e", "rm -rf /root/targets /root/aside", "mkdir /root/targets /root/aside"]
        for path, target in self.targets.items():
            make = (
                f"mkdir {target}; echo mine >{target}/file"
                if path in folders
                else f"echo mine >{target}"
            )
            script += [
                f"{make}; chmod -R go= {target}; mkdir -p {os.path.dirname(path)}",
                f"if [ -e {path} -o -L {path} ]; then mv {path} {self.aside(path)}; fi",
                # By whoever can write there.
                f"ln -s {target} {path}; chown -h --reference={os.path.dirname(path)} {path}",
            ]
        self.host.run("\n".join(script))
        self.before = self.look()

    def aside(self, path: str) -> str:
        return self.targets[path].replace("targets", "aside")

    def look(self) -> str:
        return self.host.run(
            "cd /root/targets && find . -printf '%p %i %n %m %u:%g %s %T@ %C@\\n' | sort;"
            "grep -r . . | sort"
        ).stdout

    def standing(self) -> list[str]:
        found = self.host.run(
            "\n".join(f'echo "{path} $(readlink {path})"' for path in self.targets)
        ).stdout
        seen = dict(line.partition(" ")[::2] for line in found.splitlines())
        return [path for path, target in self.targets.items() if seen[path] == target]

    def clear(self) -> None:
        self.host.run("rm", "-f", *self.standing())

    def run(self, *states: str) -> list[str]:
        """Run until it succeeds; what is named as in the way is removed. Returns what was named."""
        named: list[str] = []
        while True:
            done = self.host.apply(*states, timeout=600)
            assert self.look() == self.before, self.look()
            if done.ok:
                return named
            told = "\n".join(result.comment for result in done.failed)
            found = [path for path in self.standing() if os.path.basename(path) in told]
            assert found, told
            print(found, told)
            named += found
            for path in found:
                self.host.run(
                    f"rm {path}; ! [ -e {self.aside(path)} ] || mv {self.aside(path)} {path}"
                )


@pytest.fixture(scope="module")
def applied(host):
    """The whole formula, with all that it writes, applied under strace: the files, the directories."""
    host.run("apt-get -q update && apt-get -q -y install strace", timeout=300)
    pillar = copy.deepcopy(PILLAR)
    whole = pillar["nginx_uwsgi_django"]
    whole["acme"] = pebble.start(host, NAME)
    whole["nginx"]["health"] = {"path": "/-/health", "drain": 5}
    whole["sites"]["mysite"].update(
        server_names=[NAME],
        tls={"acme": True},
        basic_auth={"realm": "x", "users": {"ann": HASHED}},
        companions={"cleanup": {"command": "manage.py clearsessions", "schedule": "daily"}},
    )
    host.set_pillar(pillar)
    words = salt_words(host, "state.apply", mods="nginx_uwsgi_django")
    trace = ["strace", "-f", "-y", "-s", "300", "-o", "/root/trace", f"-etrace={','.join(CALLS)}"]
    done = host.run(*trace, *words, check=False, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:]
    files, folders = written(host.read("/root/trace"))
    for path in (
        "/etc/nginx/nginx.conf",
        "/etc/nginx/sites-available/mysite.pem",
        "/etc/nginx/sites-available/mysite.htpasswd",
        "/etc/systemd/system/uwsgi-mysite.socket",
        "/run/nginx_uwsgi_django-nginx_tree.lock",
        "/var/lib/nginx_uwsgi_django/acme/deploy",
    ):
        assert path in files
    assert {"/var/lib/nginx_uwsgi_django/acme/webroot", "/srv/mysite/shared/static"} < set(folders)
    return files, folders


def settled(host: Host) -> None:
    """The site answers, and there is nothing more to do."""
    again = host.apply()
    assert again.ok and again.changed == [], again.changed
    assert (
        host.run("curl", "-sk", "-o/dev/null", "-w%{http_code}", f"https://{NAME}/").stdout == "401"
    )


def test_in_the_place_of_files(host, applied):
    files, folders = applied
    # As the release's own place is taken, it is copied anew.
    files = [*files, *(path for path in folders if path.endswith(".partial"))]
    links = Links(host)
    links.plant(files, {path for path in files if re.search(r"/releases/|/current$", path)})
    there = [path for path in files if host.exists(links.aside(path))]
    named = links.run()
    print(len(files), len(there), named)
    # What only a new generation, or another package, writes is still to be written.
    once = {"/var/lib/nginx_uwsgi_django/packages.json"}
    assert set(links.standing()) & set(there) <= once
    links.clear()
    settled(host)


def test_in_the_place_of_directories(host, applied):
    """By the site's user: where root alone can write, such a link is an operator's, and followed."""
    _, folders = applied
    wanted = [
        path
        for path in folders
        if host.exists(path)
        and host.run("stat", "-c", "%U", os.path.dirname(path)).stdout.strip() != "root"
    ]
    assert {"/srv/mysite/shared/static", "/srv/mysite/shared/collected"} < set(wanted)
    for depth in sorted({path.count("/") for path in wanted}):
        level = [path for path in wanted if path.count("/") == depth]
        links = Links(host)
        links.plant(level, set(level))
        print(level, links.run())
        assert not links.standing()
    settled(host)
