"""
What is to be deployed of a site, as one value: the record that the steps of a deployment work on.
"""

from typing import Any, NamedTuple

from _nud_release_files import Release


class Plan(NamedTuple):
    """A release of a site with all that it runs with."""

    #: the site's settings
    site: dict[str, Any]
    release: Release
    #: its virtual environment, as ``python_venv.desired`` describes it
    venv: dict[str, Any]
    #: the environment of its processes; may hold secrets
    environment: dict[str, str]
    #: the site's own directories: ``shared``, ``data``, ``static`` and ``media``
    places: dict[str, str]
    #: where the static files of this release are collected; None: in ``places["static"]``
    collected: str | None

    @property
    def project(self) -> dict[str, Any]:
        """The part of the settings that is about the project."""
        return self.site["project"]

    def key(self, rest: str) -> str:
        """The pillar path of a setting of the site."""
        return pillar_path(self.site["name"], rest)


def pillar_path(name: str, rest: str) -> str:
    """The pillar path of a setting of a site."""
    return f"nginx_uwsgi_django:sites:{name}:{rest}"
