"""
A take-over that is killed at any of its calls, or whose disk is full: the site answers every request, and
the next run finishes the work.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from ..hosts.host import CommandFailed, Host
from . import handmade as made
from .nginx_host import Killed, Load, Salt, leftovers
from .nginx_kill import CALLS, points
from .test_takeover import good
from .test_takeover_units import CONSENT, unit

pytestmark = pytest.mark.long

# So many of a sweep's calls are tried, evenly spread.
POINTS = 16
STATES = ("nginx_tree.applied", "nginx_process.current", "takeover.settled")


@pytest.fixture(scope="module")
def salt(host: Host) -> Iterator[Salt]:
    """The tutorial's server, which serves; the site's own generation is up and proven."""
    made.build(host)
    made.write(host, "mysite", "v2")
    good(host.apply(pillar=made.pillar(takeover=CONSENT)))
    salt = Salt(host)
    salt.pillar = made.pillar(takeover=CONSENT)
    yield salt
    salt.close()


def take(salt: Salt) -> bool:
    """The end of a run, from nginx's tree on; whether it changed anything."""
    given: dict[str, Any] = {"nginx_tree.applied": {"unproven": False}}
    done = [salt.state(function, **given.get(function, {})) for function in STATES]
    assert all(one["result"] is True for one in done), [one["comment"] for one in done]
    return any(one["changes"] for one in done)


def back(salt: Salt) -> bool:
    return bool(salt.call("takeover.revert", name="mysite")["changes"])


def resume(salt: Salt) -> None:
    salt.call("takeover.resume", name="mysite")


def to_old(salt: Salt) -> None:
    back(salt)
    resume(salt)


def to_new(salt: Salt) -> None:
    resume(salt)
    take(salt)


@pytest.mark.parametrize(
    ("before", "act", "serves", "state"),
    [
        (to_old, take, "v2", "inactive disabled"),
        (to_new, back, "v1", "active enabled"),
    ],
    ids=["take", "revert"],
)
def test_killed_at_any_call(
    salt: Salt,
    sample: Callable[[Sequence[Any], int], list[Any]],
    before: Callable[[Salt], None],
    act: Callable[[Salt], bool],
    serves: str,
    state: str,
) -> None:
    host = salt.host
    before(salt)
    with salt.traced(f"-etrace={','.join(CALLS)}"):
        act(salt)
    found = points(host.read("/root/trace"))
    drawn, missed = sample(found[:: max(1, len(found) // POINTS)], 3), 0
    with Load(host, 80, "/", made.NAME) as load:
        for call, number in drawn:
            before(salt)
            answered = len(load.answers)
            with salt.traced(f"-etrace={call}", f"-einject={call}:signal=KILL:when={number}"):
                try:
                    act(salt)
                    missed += 1
                except Killed:
                    salt.start()
            assert len(load.answers) > answered, (call, number)
            host.run("nginx", "-t")
            act(salt)
            assert not leftovers(host), (call, number)
            assert made.served(host) == serves
            assert unit(host) == state
            assert not act(salt), (call, number)
    print(len(found), len(drawn), missed, len(load.answers), load.failures)
    assert load.failures == [] and set(load.answers) <= {b"v1", b"v2"}
    # Threads and waits are not always as many.
    assert missed <= len(drawn) // 2


def test_the_disk_is_full_where_the_record_goes(salt: Salt) -> None:
    host = salt.host
    to_old(salt)
    state_dir = "/var/lib/nginx_uwsgi_django/takeover"
    host.run(
        f"rm -rf {state_dir} && mkdir -m 700 {state_dir} && mount -t tmpfs -o size=4k tmpfs {state_dir} && "
        f"head -c 4096 /dev/zero >{state_dir}/full"
    )
    try:
        with Load(host, 80, "/", made.NAME) as load:
            run = host.apply(pillar=salt.pillar)
        assert load.failures == []
        assert {each.id for each in run.failed} == {"takeover: former services stopped"}
        assert "No space left on device" in str(run.failed[0].comment)
        assert unit(host) == "active enabled"
    finally:
        host.run(f"umount {state_dir}")
    take(salt)
    assert unit(host) == "inactive disabled"


@pytest.mark.parametrize("fault", ["project", "requirements"])
def test_a_release_that_does_not_come_up_lets_the_old_server_serve(salt: Salt, fault: str) -> None:
    host = salt.host
    pillar = made.pillar(takeover=CONSENT)
    to_old(salt)
    if fault == "project":
        made.write(host, "mysite", "v3", settings="raise RuntimeError('broken')\n")
    else:
        project = pillar["nginx_uwsgi_django"]["sites"]["mysite"]["project"]
        project.update(venv=None, requirements="requirements.txt")
        host.write("/srv/mysite/requirements.txt", "no-such-package-of-django==99\n")
    with Load(host, 80, "/", made.NAME) as load:
        assert not host.apply(pillar=pillar).ok
    assert load.failures == [] and set(load.answers) == {b"v1"}
    assert unit(host) == "active enabled"
    host.run("rm -f /srv/mysite/requirements.txt")
    made.write(host, "mysite", "v2")
    good(host.apply(pillar=salt.pillar))
    assert unit(host) == "inactive disabled"


def test_a_unit_that_nginx_still_needs_is_not_stopped(salt: Salt) -> None:
    host = salt.host
    to_old(salt)
    path = f"{made.TREE}/conf.d/other.conf"
    text = made.SITE.replace(made.NAME, "other.example.org")
    host.write(path, text)
    host.run("systemctl reload nginx")
    run = host.apply(pillar=salt.pillar)
    (failed,) = run.failed
    assert (
        f"uwsgi.service still serves unix:/tmp/mysite.sock, which {path}, line 9" in failed.comment
    )
    assert unit(host) == "active enabled"
    assert made.served(host) == "v2" and made.served(host, "other.example.org") == "v1"
    host.run(f"rm {path} && systemctl reload nginx")
    good(host.apply(pillar=salt.pillar))
    assert unit(host) == "inactive disabled"


def test_a_record_that_cannot_be_read_is_an_error(salt: Salt) -> None:
    host = salt.host
    path = "/var/lib/nginx_uwsgi_django/takeover/mysite.json"
    kept = host.read(path)
    host.write(path, "{")
    with pytest.raises(CommandFailed, match="is not the record that the formula wrote"):
        host.salt_call("takeover.revert", "mysite")
    host.write(path, kept)
