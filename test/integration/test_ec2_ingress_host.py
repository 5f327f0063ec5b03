"""
The security group kept by a real Salt: boto3 comes into its Python and is used in the same run, and
a master keeps a group by orchestration.
"""

import json

import pytest

from ..aws import REGION, Aws
from ..hosts import network
from ..hosts.salts import DIRECTORY, VERSIONS, program

pytestmark = pytest.mark.long

SDK = "ec2: boto3 on the managing minion"
GROUP = "ec2: security group rules"
CREDENTIALS = "[default]\naws_access_key_id=x\naws_secret_access_key=x\n"


@pytest.fixture(scope="module")
def aws():
    made = Aws(network.gateway())
    yield made
    made.close()


@pytest.fixture(scope="module")
def wanted(aws):
    """What is asked for, of a group that is there."""
    group = aws.client("ec2").create_security_group(GroupName="web", Description="x")["GroupId"]
    return {"group": group, "region": REGION, "endpoint": aws.endpoint, "ranges": ["0.0.0.0/0"]}


@pytest.fixture(scope="module")
def minion(host):
    host.write("/root/.aws/credentials", CREDENTIALS)
    return host


def pillar(minion, wanted):
    formula = {"sites": {"gone": {"absent": True}}}
    formula["ec2"] = {"ingress": {"minion": minion, **wanted}}
    return {"nginx_uwsgi_django": formula}


def ports(aws, wanted):
    filters = [{"Name": "group-id", "Values": [wanted["group"]]}]
    found = aws.client("ec2").describe_security_group_rules(Filters=filters)["SecurityGroupRules"]
    return {rule["FromPort"] for rule in found if not rule["IsEgress"]}


@pytest.mark.parametrize("salt", ["3006", "3008"])
def test_one_run_installs_boto3_and_uses_it(minion, aws, wanted, salt):
    own = pillar(minion.name, wanted)
    run = minion.apply(
        "nginx_uwsgi_django.ec2", pillar=pillar("other", wanted), salt=salt, cold=True
    )
    assert run.ok and run.changed == [], run
    # The Salts are shared by all hosts, and nobody can write into them.
    failed = minion.apply("nginx_uwsgi_django.ec2", pillar=own, salt=salt)
    assert "boto3>=1.38 cannot be installed" in failed.by_id[SDK].comment
    assert failed.by_id[GROUP].result is False and ports(aws, wanted) == set()
    folder = f"{DIRECTORY}/{VERSIONS[salt]}"
    minion.run(
        f"mkdir -p /run/over && mount -t tmpfs over /run/over && mkdir /run/over/up /run/over/work && "
        f"mount -t overlay over -o lowerdir={folder},upperdir=/run/over/up,workdir=/run/over/work {folder}"
    )
    try:
        dry = minion.apply("nginx_uwsgi_django.ec2", pillar=own, salt=salt, test=True)
        assert (dry.by_id[SDK].result, dry.by_id[GROUP].result) == (None, None)
        run = minion.apply("nginx_uwsgi_django.ec2", pillar=own, salt=salt)
        assert run.ok, run
        assert run.by_id[SDK].changes["boto3"]["old"] is None
        assert "tcp 443 from 0.0.0.0/0" in run.by_id[GROUP].changes
        assert ports(aws, wanted) == {80, 443}
        run = minion.apply("nginx_uwsgi_django.ec2", salt=salt)
        assert run.ok and run.changed == [], run
        by_the_master(minion, aws, wanted, salt)
        run = minion.apply("nginx_uwsgi_django.ec2.clean", salt=salt)
        assert run.ok and ports(aws, wanted) == set()
        run = minion.apply("nginx_uwsgi_django.ec2.clean", salt=salt)
        assert run.ok and run.changed == [], run
    finally:
        minion.run(f"umount {folder} /run/over")


def by_the_master(minion, aws, wanted, salt):
    """The same rules for other ports, by `salt-run` alone: no master has to run for it."""
    folder = f"/etc/salt-master-{salt}"
    config = json.loads(minion.read(f"{minion.salt_config(salt)}/minion"))
    config = {
        "file_roots": config["file_roots"],
        "file_ignore_regex": config["file_ignore_regex"],
        "root_dir": f"/var/lib/salt-master-{salt}",
        "conf_file": f"{folder}/master",
    }
    minion.write(f"{folder}/master", json.dumps(config))
    # A master's start makes it.
    minion.run("mkdir", "-p", f"/var/lib/salt-master-{salt}/var/cache/salt/master/proc")
    salt_run = [
        program(salt, "salt-run"),
        f"--config-dir={folder}",
        "--out=json",
        "--log-level=error",
    ]
    minion.run(*salt_run, "saltutil.sync_all", timeout=200)
    for clean, expected in ((False, {80, 443, 8080}), (True, {80, 443})):
        given = {"ingress": {**wanted, "ports": [8080]}, "clean": clean}
        done = minion.run(
            *[*salt_run, "state.orchestrate", "nginx_uwsgi_django.orch.ingress"],
            f"pillar={json.dumps(given)}",
            timeout=200,
        )
        assert ports(aws, wanted) == expected, done.stdout
