"""
A private repository over ssh on a real host: its key is nowhere, its release is whole.
"""

import pytest

pytestmark = pytest.mark.long


def pillar(key, host_key, **project):
    git = {
        "url": "ssh://git@127.0.0.1/home/git/site.git",
        "revision": "main",
        "key": key,
        "host_keys": [host_key],
    }
    site = {
        "server_names": ["mysite.example"],
        "project": {
            "wsgi": "a.wsgi:application",
            "settings": "a.settings",
            "source": {"git": git},
            **project,
        },
        "uwsgi": {"package": "distro"},
    }
    return {"nginx_uwsgi_django": {"sites": {"mysite": site}}}


def state(host, function="django_release.present", **more):
    (result,) = host.salt_call("state.single", function, name="mysite", **more).values()
    return result


@pytest.fixture(scope="module")
def keys(host):
    """The deploy key and the server's own, of a server with a private repository."""
    wanted = pillar("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "a ssh-rsa A")
    host.salt_call("saltutil.sync_all", pillar=wanted)
    before = state(host, test=True)
    assert before["result"] is None and "once git is installed" in before["comment"], before
    host.install("git", "openssh-server")
    host.run(
        "useradd --create-home git; ssh-keygen -q -t ed25519 -N '' -f /root/deploy; "
        "install -d -o git -m 700 ~git/.ssh; cp /root/deploy.pub ~git/.ssh/authorized_keys; "
        "chown git: ~git/.ssh/authorized_keys; mkdir -p /run/sshd; systemctl start ssh"
    )
    host.run(
        "su git -c 'cd; git init -q -b main w; cd w; git config user.name x; "
        "git config user.email x@x; echo Django > requirements.txt; git add -A; "
        "git commit -qm x; git clone -q --bare . ../site.git'"
    )
    key = host.read("/root/deploy")
    host.run("rm /root/deploy")
    server = host.read("/etc/ssh/ssh_host_ed25519_key.pub").split()
    state(host, "system_account.present")
    return key, f"127.0.0.1 {server[0]} {server[1]}"


def test_a_private_repository_becomes_a_release_and_its_key_is_on_no_disk(host, keys):
    wrong = keys[1].split()[:2] + [
        "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
    ]
    failed = state(host, pillar=pillar(keys[0], " ".join(wrong)))
    assert failed["result"] is False and "HOST IDENTIFICATION" in failed["comment"], failed
    made = state(host, pillar=pillar(*keys))
    assert made["result"] is True, made["comment"]
    path = made["changes"]["release"]["new"]
    assert host.read(f"{path}/requirements.txt") == "Django\n"
    assert state(host)["changes"] == {}
    # One line of the key, which is in the pillar and nowhere else.
    secret = keys[0].splitlines()[2]
    found = host.run(
        f"grep -rlF -e '{secret}' /srv /etc /var /run /tmp /root --exclude-dir=formula || true"
    ).stdout
    assert found == "/srv/pillar/whole.sls\n"


def test_the_pillar_names_a_release_to_stay_with(host, keys):
    (first,) = host.salt_call("django_release.stored", "mysite")
    host.run(
        "su git -c 'cd ~/w; echo x > more; git add -A; git commit -qm x; git push -q ../site.git main'"
    )
    assert state(host)["changes"]["release"]["new"] != f"/srv/mysite/releases/{first}"
    host.run("systemctl stop ssh.socket ssh; true")
    assert state(host)["result"] is False
    pinned = pillar(*keys, release=first)
    back = state(host, pillar=pinned)
    assert (back["result"], back["changes"]) == (True, {}), back["comment"]
    assert host.salt_call("django_release.desired", "mysite")["id"] == first
    gone = state(host, pillar=pillar(*keys, release="0" * 12))
    assert gone["result"] is False and first in gone["comment"]
    host.run(f"echo x >> /srv/mysite/releases/{first}/requirements.txt")
    edited = state(host, pillar=pinned)
    assert edited["result"] is False and "changed by hand" in edited["comment"]
