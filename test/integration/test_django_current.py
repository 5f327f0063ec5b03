"""The current Django as `startproject` writes it, on the Pythons of the newest two Debians."""

from typing import Any

import pytest

from ..hosts.host import Host

NAME = "www.example.org"
SOURCE = "/srv/salt/stock"
# What a newcomer adds to the settings that startproject wrote.
ADDED = f"""
ALLOWED_HOSTS = ["{NAME}"]
STATIC_ROOT = BASE_DIR / "static"
"""
# startproject's settings send mail to the console, which `check --deploy` refuses since Django 6.1.
MAILERS = """
MAILERS = {"default": {"BACKEND": "django.core.mail.backends.smtp.EmailBackend"}}
"""


def pillar(**project: Any) -> dict[str, Any]:
    return {
        "nginx_uwsgi_django": {
            "nginx": {"repo": "distro"},
            "sites": {
                "stock": {
                    "server_names": [NAME],
                    # A stock project has the admin alone.
                    "health": {"path": "/admin/login/"},
                    "project": {
                        "source": {"salt": "salt://stock"},
                        "wsgi": "stock.wsgi:application",
                        "settings": "stock.settings",
                        **project,
                    },
                }
            },
        }
    }


@pytest.mark.parametrize(
    ("host", "python"),
    [pytest.param("trixie", "3.13", marks=pytest.mark.long), ("forky", "3.14")],
    indirect=["host"],
)
def test_a_stock_project_is_served(host: Host, python: str) -> None:
    assert f"Python {python}." in host.run("/usr/bin/python3 --version").stdout
    host.run(
        "apt-get -q update && apt-get -q -y --no-install-recommends install python3-venv && "
        "python3 -m venv /opt/new && /opt/new/bin/pip -q install Django && "
        f"mkdir -p {SOURCE} && /opt/new/bin/django-admin startproject stock {SOURCE}",
        timeout=600,
    )
    version = host.run("/opt/new/bin/django-admin --version").stdout.strip()
    assert int(version.split(".")[0]) >= 6
    host.write(f"{SOURCE}/requirements.txt", f"Django=={version}\n")
    settings = host.read(f"{SOURCE}/stock/settings.py") + ADDED
    host.write(f"{SOURCE}/stock/settings.py", settings)

    refused = host.apply(pillar=pillar())
    (failed,) = [one for one in refused.failed if "failed, as stock" in one.comment]
    assert "manage.py check --deploy failed" in failed.comment
    assert "for mail.E001, or name the check in SILENCED_SYSTEM_CHECKS" in failed.comment
    assert (
        "nginx_uwsgi_django:sites:stock:project:check:deploy: now ERROR; a higher level"
        in failed.comment
    )
    assert host.run("systemctl list-units --all --no-legend 'uwsgi-stock@*'").stdout == ""

    # Each way that it names works.
    lenient = host.apply("nginx_uwsgi_django.django", pillar=pillar(check={"deploy": "CRITICAL"}))
    assert lenient.ok, lenient.failed
    host.write(f"{SOURCE}/stock/settings.py", settings + MAILERS)
    run = host.apply(pillar=pillar())
    assert run.ok, run.failed
    status, _, body = host.get("/admin/login/", NAME)
    assert (status, b"Django administration" in body) == (200, True)
    assert host.get("/static/admin/css/base.css", NAME)[0] == 200
    again = host.apply(pillar=pillar())
    assert again.ok and again.changed == [], again
