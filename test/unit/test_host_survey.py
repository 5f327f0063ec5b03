"""One look at the host for many sites: what it saw is what there is."""

import grp
import pwd

import pytest


@pytest.fixture
def survey(modules):
    return modules().host_survey


def test_accounts_are_those_that_the_c_library_finds(survey):
    users = {entry.pw_name for entry in pwd.getpwall()}
    groups = {entry.gr_name for entry in grp.getgrall()}
    assert users and groups
    with survey.begun():
        for name in users:
            assert survey.user(name) == pwd.getpwnam(name)
        for name in groups:
            assert survey.group(name) == grp.getgrnam(name)
        assert survey.user("no-such-user") is None
        assert survey.group("no-such-group") is None


def test_an_account_that_no_file_has_is_asked_for(survey, monkeypatch):
    elsewhere = pwd.struct_passwd(("ldap", "x", 4711, 4711, "", "/home/ldap", "/bin/sh"))
    monkeypatch.setattr("pwd.getpwnam", lambda name: elsewhere)
    with survey.begun():
        assert survey.user("ldap") == elsewhere
        assert survey.user("root").pw_uid == 0


def test_a_look_is_forgotten_with_the_survey_and_made_each_time_without_one(survey):
    seen = []
    with survey.begun():
        assert [survey.once("this", lambda: len(seen)) for _ in range(2)] == [0, 0]
        seen.append(1)
        assert survey.once("this", lambda: len(seen)) == 0
    assert survey.once("this", lambda: len(seen)) == 1
