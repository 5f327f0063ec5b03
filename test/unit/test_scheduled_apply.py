"""
The command that a timer starts: this Salt's own, with a configuration that lasts.
"""

import sys

import pytest
from salt.exceptions import CommandExecutionError

PILLAR = {
    "nginx_uwsgi_django": {
        "schedule": {"minutes": 60},
        "sites": {
            "x": {
                "server_names": ["x.example"],
                "project": {"wsgi": "x.wsgi:application", "settings": "x.settings"},
            }
        },
    }
}


@pytest.fixture
def scheduled(modules, monkeypatch, tmp_path):
    """The module in a Salt of its own, which pytest's place under /tmp does not make fleeting."""
    folder = tmp_path / "salt 50%"
    folder.mkdir()
    for name in ("salt-call", "salt-minion"):
        (folder / name).touch(mode=0o755)
    (folder / "minion").touch()

    def load(**opts):
        loaded = modules(pillar=PILLAR, opts={"conf_file": str(folder / "minion"), **opts})
        monkeypatch.setattr(loaded.scheduled_apply, "_FLEETING", ("/run/",))
        return loaded.scheduled_apply

    monkeypatch.setattr(sys, "argv", [str(folder / "salt-call")])
    load.folder = folder
    return load


def test_the_command_is_this_salt_with_this_configuration(scheduled, monkeypatch):
    command = scheduled().command()
    assert command[0] == f"{scheduled.folder}/salt-call"
    assert f"--config-dir={scheduled.folder}" in command
    assert command[-3:] == ["state.apply", "nginx_uwsgi_django", "queue=False"]
    # The daemon makes the same unit of it, or the two would undo each other's for ever.
    monkeypatch.setattr(sys, "argv", [str(scheduled.folder / "salt-minion")])
    assert scheduled().command() == command
    service, timer = scheduled().files().values()
    assert f'ExecStart="{scheduled.folder}/salt-call"'.replace("%", "%%") in service
    assert "OnUnitInactiveSec=60min\nRandomizedDelaySec=10min\n" in timer


def test_a_configuration_for_one_run_names_the_lasting_one(scheduled):
    command = scheduled(scheduled_apply_config="/var/lib/x/apply").command()
    assert "--config-dir=/var/lib/x/apply" in command


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        ({"file_client": "remote"}, "takes its states from a master"),
        ({"conf_file": "/nowhere/minion"}, "/nowhere/minion is not there"),
        ({"scheduled_apply_config": "/run/x"}, "the configuration is /run/x, which does not last"),
    ],
)
def test_what_no_timer_can_stand_on_is_refused(scheduled, opts, words):
    with pytest.raises(CommandExecutionError, match=words):
        scheduled(**opts).command()


def test_a_salt_without_a_salt_call_is_refused(scheduled, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/nowhere/python-program"])
    monkeypatch.setattr(sys, "executable", "/nowhere/python3")
    with pytest.raises(CommandExecutionError, match="no salt-call beside /nowhere/python-program"):
        scheduled().command()


def test_off_there_is_nothing_to_refuse(scheduled, modules):
    pillar = {"nginx_uwsgi_django": {"sites": PILLAR["nginx_uwsgi_django"]["sites"]}}
    module = modules(pillar=pillar, opts={"file_client": "remote"}).scheduled_apply
    assert module.wanted() is False
    assert module.files() == {}
