"""
The tutorial's way: a project that somebody copied to ``/srv`` by hand, with uWSGI options of its
own that still answer browsers themselves.
"""

import re

import pytest

NAME = "ec2-13-124-186-240.ap-northeast-2.compute.amazonaws.com"
TREE = "/srv/EC2_Deploy_Project"
PAGE = f"{TREE}/guestbook/templates/guestbook/start.html"
PILLAR = {
    "nginx_uwsgi_django": {
        "sites": {
            "mysite": {
                "server_names": ["*.compute.amazonaws.com"],
                "project": {
                    "path": TREE,
                    "wsgi": "mysite.wsgi:application",
                    "settings": "mysite.settings",
                },
                "uwsgi": {"ini": ".config/uwsgi/mysite.ini"},
            }
        }
    }
}

UPLOAD = r"""
import http.client, re, sys
connection = http.client.HTTPConnection("127.0.0.1")
host = {"Host": sys.argv[1]}
connection.request("GET", "/entries/", headers=host)
answer = connection.getresponse()
cookie = answer.headers["Set-Cookie"].split(";")[0]
page = answer.read().decode()
token = re.search('csrfmiddlewaretoken" value="([^"]+)"', page).group(1)
parts = {
    'name="csrfmiddlewaretoken"': token,
    'name="message"': "hello",
    'name="attachment"; filename="a.bin"': "x" * 3000000,
}
head = "--b\r\nContent-Disposition: form-data; "
body = "".join(head + name + "\r\n\r\n" + value + "\r\n" for name, value in parts.items())
more = {"Cookie": cookie, "Content-Type": "multipart/form-data; boundary=b"}
connection.request("POST", "/entries/", body + "--b--\r\n", {**host, **more})
print(connection.getresponse().status)
"""


@pytest.fixture(scope="module")
def applied(host):
    """The run after `scp -r EC2_Deploy_Project ubuntu@…:/srv/`."""
    host.run(
        "useradd --create-home ubuntu && install -d -o ubuntu /srv/EC2_Deploy_Project && "
        "su ubuntu -c 'cp -r /srv/formula/examples/mysite/. /srv/EC2_Deploy_Project'"
    )
    run = host.apply(pillar=PILLAR)
    assert run.ok, run.errors
    return run


def copied(host):
    """Every file of the tree with owner, mode, size and times."""
    return host.run(f"find {TREE} -printf '%p %i %u:%g %m %s %T@ %C@\\n' | sort").stdout


def test_the_copied_project_is_served_and_stays_its_owners(host, applied):
    status, _, body = host.get("/", NAME)
    assert status == 200
    assert b"The install worked successfully! Congratulations!" in body
    for link in re.findall(rb'"(/static/[^"]+)"', body):
        assert host.get(link.decode(), NAME)[0] == 200, link
    assert host.run(f"find {TREE} ! -user ubuntu").stdout == ""
    assert host.run(f"find {TREE} -name '*.pyc' -o -name data").stdout == ""
    assert "http = :8080" in host.read(f"{TREE}/.config/uwsgi/mysite.ini")


def test_applied_again_nothing_changes(host, applied):
    before = copied(host), host.run("pgrep -u mysite").stdout
    again = host.apply(pillar=PILLAR)
    assert again.ok, again.errors
    assert [result.id for result in again.changed] == []
    assert (copied(host), host.run("pgrep -u mysite").stdout) == before


def test_an_edited_file_is_a_new_release(host, applied):
    host.run("sed", "-i", "s/The install worked/It worked, the install/", PAGE)
    run = host.apply(pillar=PILLAR)
    assert run.ok, run.errors
    assert b"It worked, the install" in host.get("/", NAME)[2]


def test_a_guest_leaves_a_file_in_the_sites_own_directory(host, applied):
    # By the standard library in the host's own Python, as a browser would.
    assert host.run("python3", "-c", UPLOAD, NAME).stdout.strip() == "302"
    data = host.salt_call("django_release.directories", "mysite")["data"]
    kept = host.run(f"find {data}/uploads -type f -printf '%u %s\\n'").stdout
    assert kept == "mysite 3000000\n"
    assert b"hello" in host.get("/entries/", NAME)[2]


def test_a_tree_that_the_site_cannot_read_changes_nothing(host, applied):
    host.run("sed", "-i", "s/It worked/It broke/", PAGE)
    host.run("chmod", "600", PAGE)
    pids = host.run("pgrep -u mysite").stdout
    run = host.apply(pillar=PILLAR)
    assert not run.ok
    failed = run.by_id["mysite: release files"]
    assert f"mysite cannot read {PAGE}," in failed.comment
    assert "nginx_uwsgi_django:sites:mysite:project:path" in failed.comment
    assert host.run("pgrep -u mysite").stdout == pids
    host.run("chmod", "644", PAGE)
    run = host.apply(pillar=PILLAR)
    assert run.ok, run.errors
    assert b"It broke, the install" in host.get("/", NAME)[2]
