"""
An instance's facts, from a metadata service on loopback.
"""

import json
import os

import pytest
from salt.exceptions import CommandExecutionError

from test.imds import Imds


@pytest.fixture
def imds():
    service = Imds()
    yield service
    service.close()


@pytest.fixture
def instance(modules, monkeypatch, tmp_path):
    module = modules().ec2_instance
    monkeypatch.setattr(module, "_CACHE", str(tmp_path / "run" / "facts.json"))
    # Should a test ask for the real one after all, it finds nobody.
    monkeypatch.setattr(module, "_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(module, "_FIRMWARE", ((str(tmp_path / "vendor"), "amazon ec2"),))
    module.vendor = tmp_path / "vendor"
    return module


def test_an_instance_knows_itself_by_a_token(instance, imds):
    facts = instance.facts(imds.endpoint)
    assert facts == {
        "instance_id": "i-0123456789abcdef0",
        "region": "eu-central-1",
        "account": "123456789012",
        "availability_zone": "eu-central-1a",
        "security_groups": ["sg-1", "sg-2"],
        "tags": {"Name": "web 1", "role": "web"},
        "names": {
            "public-hostname": "ec2-192-0-2-7.eu-central-1.compute.amazonaws.com",
            "public-ipv4": "192.0.2.7",
            "local-hostname": "ip-10-0-0-7.eu-central-1.compute.internal",
            "local-ipv4": "10.0.0.7",
        },
        "imdsv1": False,
    }
    assert imds.asked[0] == ("PUT", "/latest/api/token")
    assert imds.ttl == "30"


def test_a_private_instance_without_tags_in_its_metadata(instance, imds):
    for path in list(imds.answers):
        if "public" in path or "tags" in path:
            del imds.answers[path]
    facts = instance.facts(imds.endpoint)
    assert facts["names"]["public-hostname"] is None
    assert facts["names"]["local-ipv4"] == "10.0.0.7"
    assert facts["tags"] == {}


def test_metadata_that_needs_no_token_is_told(instance, imds):
    imds.v1 = True
    assert instance.facts(imds.endpoint)["imdsv1"] is True


def test_the_answer_is_kept_for_a_while_and_for_its_endpoint(instance, imds, monkeypatch):
    first = instance.facts(imds.endpoint)
    count = len(imds.asked)
    imds.answers["/latest/meta-data/public-ipv4"] = "192.0.2.8"
    assert instance.facts(imds.endpoint) == first
    assert len(imds.asked) == count
    assert instance.facts(imds.endpoint, refresh=True)["names"]["public-ipv4"] == "192.0.2.8"
    assert os.stat(instance._CACHE).st_mode & 0o777 == 0o600
    now = instance.time.time()
    monkeypatch.setattr(instance.time, "time", lambda: now + 301)
    imds.answers["/latest/meta-data/public-ipv4"] = "192.0.2.9"
    assert instance.facts(imds.endpoint)["names"]["public-ipv4"] == "192.0.2.9"
    with pytest.raises(CommandExecutionError):
        instance.facts("http://127.0.0.1:9")


def test_off_ec2_nobody_is_asked(instance, imds, monkeypatch):
    monkeypatch.setattr(instance, "_ENDPOINT", imds.endpoint)
    assert instance.facts() == {}
    instance.vendor.write_text("QEMU\n")
    assert instance.facts() == {}
    assert imds.asked == []
    assert not os.path.exists(instance._CACHE)
    instance.vendor.write_text("Amazon EC2\n")
    assert instance.facts()["region"] == "eu-central-1"


def test_an_endpoint_that_is_slow_costs_less_than_a_second_in_all(instance, imds):
    # Each answer alone is in time; all of them together would take three seconds.
    imds.delay = 0.2
    with pytest.raises(CommandExecutionError, match=r"did not answer GET .* within 0\.9 s"):
        instance.facts(imds.endpoint)
    assert len(imds.asked) <= 5
    assert not os.path.exists(instance._CACHE)


@pytest.mark.parametrize(
    ("status", "words"), [(403, "403 .*disabled"), (500, "gave no token: 500")]
)
def test_a_refused_token_is_an_error_and_no_reason_to_go_without(instance, imds, status, words):
    imds.token_status, imds.v1 = status, True
    with pytest.raises(CommandExecutionError, match=words):
        instance.facts(imds.endpoint)
    assert imds.asked == [("PUT", "/latest/api/token")]


def test_an_answer_that_is_an_error_is_no_missing_name(instance, imds):
    imds.broken.add("/latest/meta-data/public-hostname")
    with pytest.raises(CommandExecutionError, match="answered 500 for .*/public-hostname"):
        instance.facts(imds.endpoint)
    assert not os.path.exists(instance._CACHE)


def test_a_tag_of_any_name_is_read(instance, imds):
    tags = "/latest/meta-data/tags/instance"
    imds.answers.update({tags: "50%25?", f"{tags}/50%2525%3F": "odd"})
    assert instance.facts(imds.endpoint)["tags"] == {"50%25?": "odd"}


def test_something_else_at_the_endpoint_is_an_error(instance, imds):
    for text in ("<html>", json.dumps(["a", "list"])):
        imds.answers["/latest/dynamic/instance-identity/document"] = text
        with pytest.raises(CommandExecutionError, match="no instance metadata"):
            instance.facts(imds.endpoint)
    with pytest.raises(CommandExecutionError, match="http URL"):
        instance.facts("ftp://127.0.0.1")
