"""Accounts of the host, from its files or from what the C library asks."""

import grp
import pwd

from _nud import accounts, cache


def test_accounts_are_those_that_the_c_library_finds():
    users = {entry.pw_name for entry in pwd.getpwall()}
    groups = {entry.gr_name for entry in grp.getgrall()}
    assert users and groups
    with cache.session():
        for name in users:
            assert accounts.user(name) == pwd.getpwnam(name)
        for name in groups:
            assert accounts.group(name) == grp.getgrnam(name)
        assert accounts.user("no-such-user") is None
        assert accounts.group("no-such-group") is None


def test_an_account_that_no_file_has_is_asked_for(monkeypatch):
    elsewhere = pwd.struct_passwd(("ldap", "x", 4711, 4711, "", "/home/ldap", "/bin/sh"))
    monkeypatch.setattr("pwd.getpwnam", lambda name: elsewhere)
    with cache.session():
        assert accounts.user("ldap") == elsewhere
        assert accounts.user("root").pw_uid == 0
