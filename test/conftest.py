"""
What all tests share.
"""

import os
import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import hypothesis
import pytest

from .hosts.fixtures import forky_host, host, nginx_org_host, trixie_host, ubuntu_host
from .modules import Modules

__all__ = [
    "forky_host",
    "full",
    "host",
    "modules",
    "nginx_org_host",
    "sample",
    "seed",
    "trixie_host",
    "ubuntu_host",
]

#: What samples are drawn by: an environment variable, so that the workers of pytest-xdist draw what
#: the header says.
SEED = "NGINX_UWSGI_DJANGO_SEED"
_T = TypeVar("_T")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The project's own options."""
    group = parser.getgroup("nginx_uwsgi_django")
    group.addoption("--full", action="store_true", help="long sweeps whole, not a sample of them")
    group.addoption("--seed", type=int, help="what the samples are drawn by; else made up")


def pytest_configure(config: pytest.Config) -> None:
    """Settle the seed, before the workers are started."""
    if config.getoption("--seed") is not None:
        os.environ[SEED] = str(config.getoption("--seed"))
    os.environ.setdefault(SEED, str(random.SystemRandom().randrange(1_000_000)))
    hypothesis.settings.register_profile("default-run", max_examples=50, deadline=None)
    hypothesis.settings.register_profile("full", max_examples=2000, deadline=None)
    hypothesis.settings.load_profile("full" if config.getoption("--full") else "default-run")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """
    Leave the tests marked `long` to `--full`, and of those marked `few` all cases but a sample;
    pytest's last line counts them as deselected.
    """
    if config.getoption("--full"):
        return
    left = {item for item in items if item.get_closest_marker("long")}
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("few"):
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for name, all_of_it in cases.items():
        marker = all_of_it[0].get_closest_marker("few")
        assert marker is not None
        count = min(marker.args[0], len(all_of_it))
        # By the test's own name, as `sample` draws.
        drawn = random.Random(f"{os.environ[SEED]} {name}").sample(all_of_it, count)
        left |= {*all_of_it} - {*drawn}
    config.hook.pytest_deselected(items=[item for item in items if item in left])
    items[:] = [item for item in items if item not in left]


def pytest_report_header(config: pytest.Config) -> str:
    """Say how to draw the same samples again."""
    if config.getoption("--full"):
        return "sweeps: full"
    return (
        f"sweeps: sampled; the same samples again: --seed {os.environ[SEED]}; "
        "tests marked long: with --full alone"
    )


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether long sweeps are to be run whole."""
    return bool(request.config.getoption("--full"))


@pytest.fixture(scope="session")
def seed() -> int:
    """What samples are drawn by; in the run's header."""
    return int(os.environ[SEED])


@pytest.fixture
def sample(
    request: pytest.FixtureRequest, full: bool, seed: int
) -> Callable[[Sequence[_T], int], list[_T]]:
    """
    ``sample(cases, count)``: that many of them, in their order; with ``--full`` all.
    """
    # By the test's own name: what one test draws does not depend on which others run.
    chance = random.Random(f"{seed} {request.node.nodeid}")

    def draw(cases: Sequence[Any], count: int) -> list[Any]:
        if full or count >= len(cases):
            return list(cases)
        return [cases[index] for index in sorted(chance.sample(range(len(cases)), count))]

    return draw


@pytest.fixture
def modules() -> type[Modules]:
    """
    The formula's real modules, wired to each other without a host.

    ``m = modules(pillar={...}, grains={...}, test=True)`` loads fresh copies; then
    ``m.site_pillar.settings()``, ``m.salt["site_pillar.settings"]()``,
    ``m.states.nginx_tree.applied("x")``.
    """
    return Modules
