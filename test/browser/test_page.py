"""
The tutorial's last step: the site's page in a real browser, through nginx and uWSGI.
"""

import html.parser
import pathlib
import re
import shutil
import struct
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# A name that the pillar's `*.compute.amazonaws.com` covers, as EC2 gives one to a machine.
NAME = "ec2-13-124-186-240.ap-northeast-2.compute.amazonaws.com"
HEADLINE = "The install worked successfully! Congratulations!"
PILLAR = {
    "nginx_uwsgi_django": {
        "sites": {
            "mysite": {
                "server_names": ["*.compute.amazonaws.com"],
                "project": {
                    "source": {"salt": "salt://examples/mysite"},
                    "wsgi": "mysite.wsgi:application",
                    "settings": "mysite.settings",
                },
            }
        }
    }
}


@pytest.fixture(scope="module")
def applied(host):
    run = host.apply(pillar=PILLAR)
    assert run.ok, run.errors
    return run


@pytest.fixture
def browser(host, tmp_path):
    """Run headless Chromium on an address of the site; returns what it printed."""
    program = shutil.which("chromium")
    assert program, "Debian's package chromium is missing: bin/test installs it"

    def run(path, *flags):
        done = subprocess.run(
            [
                program,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--hide-scrollbars",
                f"--user-data-dir={tmp_path / 'profile'}",
                # The name is Amazon's; here it is the throwaway host's.
                f"--host-resolver-rules=MAP {NAME} {host.address}, MAP * ~NOTFOUND",
                *flags,
                f"http://{NAME}{path}",
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


class Text(html.parser.HTMLParser):
    """The text of every element that has an interesting name, by name."""

    def __init__(self, page):
        super().__init__()
        self.found = {}
        self.open = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        if tag in ("title", "h1", "strong", "label", "button"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_data(self, data):
        for tag in self.open:
            self.found[tag] = self.found.get(tag, "") + data


def test_a_browser_shows_the_page_that_says_that_it_works(host, applied, browser):
    page = Text(browser("/", "--dump-dom")).found
    assert page["title"] == HEADLINE
    assert page["h1"] == HEADLINE
    assert re.fullmatch(r"Django 5\.2\.[0-9]+", page["strong"])
    # The browser fetched what the page is made of, under names with the content's hash.
    log = host.read("/var/log/nginx/access.log")
    for name in (r"guestbook/style\.[0-9a-f]{12}\.css", r"guestbook/icon\.[0-9a-f]{12}\.svg"):
        assert re.search(rf'"GET /static/{name} HTTP/1\.1" 200 .*HeadlessChrome', log), log


def test_its_picture_is_kept(applied, browser):
    artifacts = ROOT / "artifacts"
    artifacts.mkdir(exist_ok=True)
    picture = artifacts / "page.png"
    picture.unlink(missing_ok=True)
    browser("/", f"--screenshot={picture}", "--window-size=1000,700")
    content = picture.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", content[16:24]) == (1000, 700)
    # An empty page of one colour compresses to less.
    assert len(content) > 8000


def test_the_admin_asks_who_it_is_in_its_own_style(host, applied, browser):
    page = Text(browser("/admin/", "--dump-dom")).found
    assert page["title"] == "Log in | Django site admin"
    assert "Username" in page["label"] and "Password" in page["label"]
    log = host.read("/var/log/nginx/access.log")
    assert re.search(r'"GET /static/admin/css/login\.[0-9a-f]{12}\.css HTTP/1\.1" 200 ', log), log
