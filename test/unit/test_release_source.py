"""
Sources of releases: archives and repositories are read as data, whole or not at all.
"""

import base64
import functools
import hashlib
import http.server
import io
import os
import ssl
import subprocess
import tarfile
import threading
import zipfile

import pytest
from salt.exceptions import CommandExecutionError


@pytest.fixture
def loaded(modules, tmp_path):
    """The modules for a site with that source."""

    def load(**source):
        project = {
            "path": "/srv/mysite",
            "wsgi": "a.wsgi:application",
            "settings": "a.settings",
            "source": source,
        }
        site = {"server_names": ["a.example"], "project": project}
        m = modules(
            pillar={"nginx_uwsgi_django": {"sites": {"mysite": site}}},
            opts={"cachedir": str(tmp_path / "cache")},
        )
        return m

    return load


def tar(path, *entries, kind="w:gz"):
    """A tar archive of (name, content or {TarInfo's attributes})."""
    with tarfile.open(path, kind) as archive:
        for name, what in entries:
            info = tarfile.TarInfo(name)
            if isinstance(what, dict):
                for key, value in what.items():
                    setattr(info, key, value)
                archive.addfile(info)
            else:
                info.size = len(what)
                archive.addfile(info, io.BytesIO(what))
    return archive_source(path)


def archive_source(path):
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"archive": {"url": f"file://{path}", "sha256": digest}}


def files(root):
    return {
        os.path.relpath(os.path.join(folder, name), root)
        for folder, _, names in os.walk(root)
        for name in names
    }


@pytest.mark.parametrize("kind", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_archive_of_any_compression_loses_its_one_directory(loaded, tmp_path, kind):
    source = tar(
        tmp_path / "a.tar",
        ("a-1.0/manage.py", b"x"),
        ("a-1.0/a/__init__.py", b""),
        ("a-1.0/link", {"type": tarfile.SYMTYPE, "linkname": "a/__init__.py"}),
        kind=kind,
    )
    found = loaded(**source).release_source.obtain("mysite")
    assert files(found["root"]) == {"manage.py", "a/__init__.py", "link"}
    source["archive"]["strip"] = False
    found = loaded(**source).release_source.obtain("mysite")
    assert files(found["root"]) == {"a-1.0/manage.py", "a-1.0/a/__init__.py", "a-1.0/link"}


def test_a_zip_archive_keeps_what_is_a_program(loaded, tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("a/run")
        info.external_attr = 0o100755 << 16
        archive.writestr(info, b"x")
        archive.writestr("a/b", b"y")
    root = loaded(**archive_source(path)).release_source.obtain("mysite")["root"]
    assert os.access(os.path.join(root, "run"), os.X_OK)
    assert os.stat(os.path.join(root, "b")).st_mode & 0o111 == 0


LINK = {"type": tarfile.SYMTYPE}


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([("../x", b"")], "leads out"),
        ([("/etc/x", b"")], "leads out"),
        ([("a/../../x", b"")], "leads out"),
        ([("a", {**LINK, "linkname": "/etc/passwd"})], "leads out"),
        ([("d/a", {**LINK, "linkname": "../../x"})], "leads out"),
        ([("d", {**LINK, "linkname": "."}), ("e", {**LINK, "linkname": "d/../.."})], "leads out"),
        ([("d", {**LINK, "linkname": "e"}), ("d/x", b"")], "twice"),
        ([("a", b"1"), ("a", b"2")], "twice"),
        ([("null", {"type": tarfile.CHRTYPE})], "neither a file nor a link"),
        ([("pipe", {"type": tarfile.FIFOTYPE})], "neither a file nor a link"),
        ([("hard", {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"})], "passwd"),
        ([], "no file"),
    ],
)
def test_what_leads_out_of_an_archive_is_refused_and_nothing_is_left(
    loaded, tmp_path, entries, words
):
    m = loaded(**tar(tmp_path / "a.tar.gz", *entries))
    with pytest.raises(CommandExecutionError, match=words):
        m.release_source.obtain("mysite")
    assert os.listdir(*m.release_source.leftovers("mysite")) == []


def test_another_checksum_a_torn_archive_and_no_archive_are_told_apart(loaded, tmp_path):
    source = tar(tmp_path / "a.tar.gz", ("a/b", os.urandom(100_000)))
    right = source["archive"]["sha256"]
    source["archive"]["sha256"] = "0" * 64
    with pytest.raises(CommandExecutionError, match=f"has the sha256 {right}, not the 0000"):
        loaded(**source).release_source.obtain("mysite")
    (tmp_path / "torn").write_bytes((tmp_path / "a.tar.gz").read_bytes()[:50_000])
    with pytest.raises(CommandExecutionError, match="the archive file"):
        loaded(**archive_source(tmp_path / "torn")).release_source.obtain("mysite")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(CommandExecutionError, match="neither a tar nor a zip"):
        loaded(**archive_source(tmp_path / "text")).release_source.obtain("mysite")


@pytest.fixture
def repository(tmp_path):
    """A repository whose owner would like to run something; ``commit(files)`` returns the hash."""
    path = tmp_path / "repository"

    def git(*words):
        done = subprocess.run(
            ["git", "-C", path, "-c", "user.name=x", "-c", "user.email=x@x.example", *words],
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    path.mkdir()
    git("init", "-q", "-b", "main")

    def commit(**contents):
        for name, text in contents.items():
            (path / name).write_text(text)
        git("add", "-A")
        git("commit", "-q", "-m", "x")
        return git("rev-parse", "HEAD")

    commit.git = git
    commit.url = f"file://{path}"
    commit.path = path
    return commit


def test_a_branch_a_tag_and_a_hash_are_what_they_name(loaded, repository):
    first = repository(manage="1")
    repository.git("tag", "-a", "-m", "x", "v1")
    second = repository(manage="2")

    def content(revision):
        m = loaded(git={"url": repository.url, "revision": revision})
        found = m.release_source.obtain("mysite")
        with open(os.path.join(found["root"], "manage"), encoding="utf-8") as stream:
            return stream.read(), f"{found['source']} {found['revision']}"

    assert content("main") == ("2", f"{repository.url} main ({second})")
    assert content("v1") == ("1", f"{repository.url} v1 ({first})")
    assert content(first)[0] == "1"
    assert content(second)[0] == "2"
    with pytest.raises(CommandExecutionError, match="neither a branch nor a tag v2"):
        content("v2")
    with pytest.raises(CommandExecutionError, match="a full one, of 40 digits"):
        content(first[:10])
    with pytest.raises(CommandExecutionError):
        content("0" * 40)


def test_a_repository_of_somebody_elses_runs_nothing_and_is_only_read(loaded, repository, tmp_path):
    repository(
        manage="$Id$ $Format:%H$\n",
        **{".gitattributes": "manage filter=evil ident export-subst\n"},
    )
    trap = tmp_path / "ran"
    hooks = repository.path / ".git/hooks"
    hooks.mkdir(exist_ok=True)
    for hook in ("post-checkout", "pre-receive", "reference-transaction"):
        (hooks / hook).write_text(f"#!/bin/sh\ntouch {trap}\n")
        (hooks / hook).chmod(0o755)
    repository.git("config", "filter.evil.smudge", f"touch {trap}")
    repository.git("config", "uploadpack.packObjectsHook", f"touch {trap}; exec")
    subprocess.run(["chown", "-R", "games", repository.path], check=True)
    m = loaded(git={"url": repository.url, "revision": "main"})
    root = m.release_source.obtain("mysite")["root"]
    assert files(root) == {"manage", ".gitattributes"}
    with open(os.path.join(root, "manage"), "rb") as stream:
        assert stream.read() == b"$Id$ $Format:%H$\n"
    assert not trap.exists()


def test_a_link_out_of_a_repository_is_refused(loaded, repository):
    (repository.path / "out").symlink_to("/etc/passwd")
    repository(manage="1")
    with pytest.raises(CommandExecutionError, match="'out' in it leads out"):
        loaded(git={"url": repository.url, "revision": "main"}).release_source.obtain("mysite")


def test_what_was_fetched_is_not_fetched_again_and_replaces_the_older(loaded, repository):
    first = repository(manage="1")
    m = loaded(git={"url": repository.url, "revision": first})
    root = m.release_source.obtain("mysite")["root"]
    repository.path.rename(repository.path.with_name("away"))
    again = loaded(git={"url": repository.url, "revision": first})
    assert again.release_source.obtain("mysite", refresh=True)["root"] == root
    repository.path.with_name("away").rename(repository.path)
    repository(manage="2")
    m = loaded(git={"url": repository.url, "revision": "main"})
    newer = m.release_source.obtain("mysite")["root"]
    assert os.listdir(*m.release_source.leftovers("mysite")) == [os.path.basename(newer)]
    assert m.release_source.remove("mysite") and m.release_source.leftovers("mysite") == []


# --- Servers ---------------------------------------------------------------------------------------


class Answers(http.server.SimpleHTTPRequestHandler):
    """Files of a directory, for whoever logs in; ``server.first`` are answers to give before."""

    def do_GET(self):
        server = self.server
        server.asked.append((self.path, self.headers.get("Authorization")))
        if server.first:
            status, headers = server.first.pop(0)
            self.send_response(status)
            for key, value in {**headers, "Content-Length": "0"}.items():
                self.send_header(key, value)
            self.end_headers()
        elif server.login and self.headers.get("Authorization") != server.login:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="x"')
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, *words):
        """Nothing."""


@pytest.fixture
def serve(tmp_path):
    """``serve(login=…, tls=…)``: a server of ``tmp_path`` on this host alone."""
    running = []

    def begin(login=None, tls=None):
        handler = functools.partial(Answers, directory=str(tmp_path))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.asked, server.first = [], []
        server.login = login and "Basic " + base64.b64encode(login.encode()).decode()
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        server.url = f"http{'s' if tls else ''}://localhost:{server.server_port}"
        running.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    yield begin
    for server in running:
        server.shutdown()
        server.server_close()


def offered(tmp_path, server, **login):
    """An archive that the server has."""
    source = tar(tmp_path / "a.tar.gz", ("a/manage.py", b"x"))
    source["archive"].update(url=f"{server.url}/a.tar.gz", **login)
    return source


def test_an_archive_comes_by_http_once_and_by_login(loaded, tmp_path, serve):
    server = serve(login="deploy:s3cret-word")
    source = offered(tmp_path, server, user="deploy", password="s3cret-word")
    for _ in range(2):
        found = loaded(**source).release_source.obtain("mysite")
        assert files(found["root"]) == {"manage.py"}
    assert [path for path, _ in server.asked] == ["/a.tar.gz"]
    loaded(**source).release_source.remove("mysite")
    source["archive"]["password"] = "another-word"
    with pytest.raises(CommandExecutionError, match="401") as caught:
        loaded(**source).release_source.obtain("mysite")
    assert "another-word" not in str(caught.value)


def test_a_login_is_not_for_where_a_redirection_leads(loaded, tmp_path, serve):
    server, other = serve(login="deploy:s3cret-word"), serve()
    server.first = [(302, {"Location": f"{other.url}/a.tar.gz"})]
    source = offered(tmp_path, server, user="deploy", password="s3cret-word")
    assert files(loaded(**source).release_source.obtain("mysite")["root"]) == {"manage.py"}
    assert server.asked == [("/a.tar.gz", server.login)]
    assert other.asked == [("/a.tar.gz", None)]


def test_a_server_in_trouble_is_asked_again_and_a_refusal_is_not(
    loaded, tmp_path, serve, monkeypatch
):
    server = serve()
    source = offered(tmp_path, server)
    m = loaded(**source)
    monkeypatch.setattr(m.release_source.time, "sleep", lambda seconds: None)
    server.first = [(404, {})]
    with pytest.raises(CommandExecutionError, match="404"):
        m.release_source.obtain("mysite")
    assert len(server.asked) == 1
    server.first = [(503, {})] * 3
    with pytest.raises(CommandExecutionError, match="503"):
        m.release_source.obtain("mysite")
    assert len(server.asked) == 4 and os.listdir(*m.release_source.leftovers("mysite")) == []
    server.first = [(503, {})] * 2
    assert files(m.release_source.obtain("mysite")["root"]) == {"manage.py"}


def test_a_server_by_tls_has_to_be_known(loaded, tmp_path, serve, monkeypatch):
    (tmp_path / "keys").mkdir()
    pem = tmp_path / "keys" / "server.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost", "-days", "2"),
            *("-keyout", pem, "-out", f"{pem}.crt"),
        ],
        check=True,
        capture_output=True,
    )
    pem.write_bytes(pem.read_bytes() + (tmp_path / "keys" / "server.pem.crt").read_bytes())
    source = offered(tmp_path, serve(tls=str(pem)))
    m = loaded(**source)
    monkeypatch.setattr(m.release_source.time, "sleep", lambda seconds: None)
    with pytest.raises(CommandExecutionError, match="CERTIFICATE_VERIFY_FAILED"):
        m.release_source.obtain("mysite")
    m.opts["ca_bundle"] = f"{pem}.crt"
    assert files(m.release_source.obtain("mysite")["root"]) == {"manage.py"}


def test_a_repository_behind_a_login_that_knows_no_shallow_history(
    loaded, repository, tmp_path, serve
):
    """Plain files over http: git has to fetch all of it."""
    first = repository(manage="1")
    repository(manage="2")
    bare = tmp_path / "bare.git"
    subprocess.run(
        ["git", "clone", "-q", "--bare", repository.url.removeprefix("file://"), str(bare)],
        check=True,
    )
    subprocess.run(["git", "-C", str(bare), "update-server-info"], check=True)
    server = serve(login="deploy:s3cret-word")
    login = {"user": "deploy", "password": "s3cret-word"}
    for revision, text in ((first, "1"), ("main", "2")):
        git = {"url": f"{server.url}/bare.git", "revision": revision, **login}
        root = loaded(git=git).release_source.obtain("mysite")["root"]
        with open(os.path.join(root, "manage"), encoding="utf-8") as stream:
            assert stream.read() == text
    assert {login for _, login in server.asked} == {server.login}
    git = {"url": f"{server.url}/bare.git", "revision": "main", **login, "password": "wrong-word"}
    with pytest.raises(CommandExecutionError) as caught:
        loaded(git=git).release_source.obtain("mysite")
    assert "wrong-word" not in str(caught.value)
    gone = {**git, "password": "s3cret-word", "revision": "1" * 40}
    with pytest.raises(CommandExecutionError, match="has no commit 1111"):
        loaded(git=gone).release_source.obtain("mysite")
