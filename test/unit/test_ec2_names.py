"""
A site that answers to the names of its instance, told by a metadata service on loopback.
"""

import pytest

from test.imds import Imds

PUBLIC = "ec2-192-0-2-7.eu-central-1.compute.amazonaws.com"


@pytest.fixture
def imds():
    service = Imds()
    yield service
    service.close()


@pytest.fixture
def host(modules, monkeypatch, tmp_path):
    """A host whose pillar has one site of these names."""

    def of(names, metadata=None, absent=False, more=None):
        site = {"server_names": names, "absent": absent}
        site["project"] = {"wsgi": "mysite.wsgi:application", "settings": "mysite.settings"}
        pillar = {"sites": {"mysite": site}, "ec2": {"metadata": metadata}, **(more or {})}
        made = modules(pillar={"nginx_uwsgi_django": pillar})
        monkeypatch.setattr(made.ec2_instance, "_CACHE", str(tmp_path / "run" / "facts.json"))
        monkeypatch.setattr(made.ec2_instance, "_ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.setattr(made.ec2_instance, "_FIRMWARE", ())
        return made.site_pillar

    return of


def test_the_names_of_the_instance_are_the_sites(host, imds):
    names = ["ec2:public-hostname", "ec2:local-ipv4", "www.example.org", "10.0.0.7"]
    site = host(names, imds.endpoint).site("mysite")
    assert site["server_names"] == [PUBLIC, "10.0.0.7", "www.example.org"]
    assert site["health"]["host"] == PUBLIC


def test_the_names_of_all_sites_may_come_from_the_instance(host, imds):
    pillar = host(["a.example"], imds.endpoint, more={"site_defaults": {"server_names": ["_"]}})
    assert pillar.site("mysite")["server_names"] == ["a.example"]
    defaults = {"server_names": ["ec2:public-hostname"]}
    project = {"wsgi": "a.wsgi:application", "settings": "a.settings"}
    more = {"site_defaults": defaults, "sites": {"mysite": {"project": project}}}
    pillar = host([], imds.endpoint, more=more)
    assert pillar.site("mysite")["server_names"] == [PUBLIC]


def test_a_name_that_the_instance_lacks_adds_none(host, imds):
    del imds.answers["/latest/meta-data/public-hostname"]
    site = host(["ec2:public-hostname", "www.example.org"], imds.endpoint).site("mysite")
    assert site["server_names"] == ["www.example.org"]


def test_nobody_is_asked_where_no_site_wants_it(host, imds):
    host(["www.example.org"], imds.endpoint).settings()
    host(["ec2:public-hostname"], imds.endpoint, absent=True).settings()
    assert imds.asked == []


def test_off_ec2_other_names_do_and_none_is_an_error(host):
    assert host(["ec2:public-ipv4", "a.example"]).site("mysite")["server_names"] == ["a.example"]
    (error,) = host(["ec2:public-ipv4"]).check()
    assert error["path"] == "nginx_uwsgi_django:sites:mysite:server_names"
    assert error["rule"] == "meaning"
    assert "does not say that it is an EC2 instance" in error["hint"]


def test_metadata_that_do_not_answer_leave_the_pillar_invalid(host, imds):
    imds.token_status = 403
    (error,) = host(["a.example", "ec2:public-ipv4"], imds.endpoint).check()
    assert error["path"] == "nginx_uwsgi_django:sites:mysite:server_names:1"
    assert "gave no token: 403" in error["hint"]


@pytest.mark.parametrize("name", ["ec2:", "ec2:public-hostname.", "ec2:instance-id", "*.ec2:x"])
def test_what_is_no_name_of_an_instance_is_an_error(host, name):
    assert [error["rule"] for error in host([name]).check()] == ["shape"]
