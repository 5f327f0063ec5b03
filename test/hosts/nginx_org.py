"""
A Debian host with an archive laid out as nginx.org's, holding a package built as theirs is: one
``nginx`` with ``conf.d`` and without ``sites-enabled``, run as the user ``nginx``.

Texts after https://nginx.org/packages/debian, nginx 1.28.
"""

import pathlib
import re
import tempfile

from .host import Host
from .image import debs
from .paths import HostError
from .tools import run
from .ubuntu import Archive

_NGINX_CONF = """\

user  nginx;
worker_processes  auto;

error_log  /var/log/nginx/error.log notice;
pid        /run/nginx.pid;


events {
    worker_connections  1024;
}


http {
    include       /etc/nginx/mime.types;
    default_type  application/octet-stream;

    log_format  main  '$remote_addr - $remote_user [$time_local] "$request" '
                      '$status $body_bytes_sent "$http_referer" '
                      '"$http_user_agent" "$http_x_forwarded_for"';

    access_log  /var/log/nginx/access.log  main;

    sendfile        on;
    #tcp_nopush     on;

    keepalive_timeout  65;

    #gzip  on;

    include /etc/nginx/conf.d/*.conf;
}
"""
_DEFAULT_CONF = """\
server {
    listen       80;
    server_name  localhost;

    location / {
        root   /usr/share/nginx/html;
        index  index.html index.htm;
    }

    error_page   500 502 503 504  /50x.html;
    location = /50x.html {
        root   /usr/share/nginx/html;
    }
}
"""
_SERVICE = """\
[Unit]
Description=nginx - high performance web server
Documentation=https://nginx.org/en/docs/
After=network-online.target remote-fs.target nss-lookup.target
Wants=network-online.target

[Service]
Type=forking
PIDFile=/run/nginx.pid
ExecStart=/usr/sbin/nginx -c /etc/nginx/nginx.conf
ExecReload=/bin/sh -c "/bin/kill -s HUP $(/bin/cat /run/nginx.pid)"
ExecStop=/bin/sh -c "/bin/kill -s TERM $(/bin/cat /run/nginx.pid)"

[Install]
WantedBy=multi-user.target
"""
# Theirs starts it, or lets the new binary take over, by the init script, and asks no policy-rc.d.
_INIT = """\
#!/bin/sh
### BEGIN INIT INFO
# Provides: nginx
# Required-Start: $network $remote_fs $local_fs
# Required-Stop: $network $remote_fs $local_fs
# Default-Start: 2 3 4 5
# Default-Stop: 0 1 6
### END INIT INFO
pid=$(cat /run/nginx.pid 2> /dev/null)
case "$1" in
    start) exec systemctl start nginx.service ;;
    stop) exec systemctl stop nginx.service ;;
    upgrade)
        kill -s USR2 "$pid"
        sleep 1
        [ -f /run/nginx.pid.oldbin ] && kill -s QUIT "$(cat /run/nginx.pid.oldbin)"
        ;;
    status) kill -0 "$pid" ;;
esac
"""
_POSTINST = """\
#!/bin/sh
set -e
if [ "$1" = configure ]; then
    getent group nginx > /dev/null || addgroup --system nginx > /dev/null
    getent passwd nginx > /dev/null || adduser --system --disabled-login --ingroup nginx \\
        --no-create-home --home /nonexistent --gecos "nginx user" --shell /bin/false nginx > /dev/null
    # The last for the sake of Debian's binary, which keeps its temporary files there.
    mkdir -p /var/log/nginx /var/cache/nginx /var/lib/nginx
    deb-systemd-helper enable nginx.service > /dev/null
    systemctl --system daemon-reload > /dev/null
    if [ -x /etc/init.d/nginx ]; then
        if [ -f /run/nginx.pid ] && kill -0 "$(cat /run/nginx.pid)" > /dev/null; then
            /etc/init.d/nginx upgrade || echo "Binary upgrade failed"
        else
            invoke-rc.d nginx start || true
        fi
    fi
fi
"""
_PRERM = """\
#!/bin/sh
set -e
[ "$1" != remove ] || deb-systemd-invoke stop nginx.service > /dev/null
"""
_FILES = ("mime.types", "fastcgi_params", "scgi_params", "uwsgi_params")


def build(archives: pathlib.Path, target: pathlib.Path, version: str) -> pathlib.Path:
    """
    Build nginx.org's package around Debian's binary.

    archives
        a directory with Debian's nginx packages
    target
        the directory to write to
    version
        e.g. ``1.30.0-1~bookworm``
    """
    with tempfile.TemporaryDirectory(prefix="nudnginx") as scratch:
        tree, common = pathlib.Path(scratch, "tree"), pathlib.Path(scratch, "common")
        for name, folder in (("nginx", tree), ("nginx-common", common)):
            found = list(archives.glob(f"{name}_*.deb"))
            if len(found) != 1:
                raise HostError(f"there is no single {name} in {archives}")
            run("dpkg-deb", "--raw-extract", found[0], folder)
        control = (tree / "DEBIAN/control").read_text("utf-8")
        depends = re.findall(r"^Depends: (.*)$", control, re.MULTILINE)[0].split(", ")
        depends = [word for word in depends if not word.startswith(("nginx-common", "iproute2"))]
        for path in (tree / "DEBIAN").iterdir():
            path.unlink()
        texts = {
            "etc/nginx/nginx.conf": _NGINX_CONF,
            "etc/nginx/conf.d/default.conf": _DEFAULT_CONF,
            "etc/init.d/nginx": _INIT,
            "usr/lib/systemd/system/nginx.service": _SERVICE,
            "usr/share/nginx/html/index.html": "<h1>Welcome to nginx!</h1>\n",
            "usr/share/nginx/html/50x.html": "<h1>An error occurred.</h1>\n",
            "DEBIAN/postinst": _POSTINST,
            "DEBIAN/prerm": _PRERM,
            "DEBIAN/control": (
                f"Package: nginx\nVersion: {version}\nArchitecture: amd64\n"
                "Maintainer: NGINX Packaging <nginx-packaging@f5.com>\nSection: httpd\n"
                f"Priority: optional\nDepends: {', '.join(depends)}, adduser, "
                "init-system-helpers\nProvides: httpd, nginx\n"
                "Conflicts: nginx-common, nginx-core\nReplaces: nginx-common, nginx-core\n"
                "Description: high performance web server\n"
            ),
        }
        texts |= {
            f"etc/nginx/{name}": (common / "etc/nginx" / name).read_text("utf-8") for name in _FILES
        }
        texts["DEBIAN/conffiles"] = "".join(
            f"/{name}\n" for name in texts if name.startswith("etc/")
        )
        for name, text in texts.items():
            path = tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        (tree / "etc/init.d/nginx").chmod(0o755)
        (tree / "etc/nginx/modules").symlink_to("/usr/lib/nginx/modules")
        for name in ("postinst", "prerm"):
            (tree / "DEBIAN" / name).chmod(0o755)
        made = target / f"nginx_{version}_amd64.deb"
        run("dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", tree, made)
    return made


class NginxOrgHost(Host):
    """
    A Debian host.

    nginx_org
        the archive that stands for nginx.org's: ``uri``, ``fingerprint``, ``source()`` …
    """

    nginx_org: Archive

    def serve_nginx_org(self) -> None:
        """Make and serve the archive; ends with the host, or with this process."""
        self.nginx_org = Archive(
            self.folder / "nginx.org", "packages/debian", self.release, "nginx", "nginx"
        )
        pool = self.nginx_org.repository.folder / "pool/nginx/n/nginx"
        pool.mkdir(parents=True)
        self.nginx_org.version = f"1.30.0-1~{self.release}"
        build(debs(self.image), pool, self.nginx_org.version)
        self.nginx_org.repository.publish(self.nginx_org.key)

    def remove(self) -> None:
        """Take it away, and the archive with it."""
        if hasattr(self, "nginx_org"):
            self.nginx_org.close()
            del self.nginx_org
        super().remove()
