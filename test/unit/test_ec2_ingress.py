"""
A security group's rules, by the API of moto's server over HTTP.
"""

import json
import re

import botocore.loaders
import pytest
from salt.exceptions import CommandExecutionError

from test.aws import REGION, Aws
from test.hosts.paths import FORMULA

ALL = ["0.0.0.0/0", "::/0"]


@pytest.fixture(scope="module")
def server():
    # What EC2 can do is megabytes of JSON: read once, and not for each client.
    loader = botocore.loaders.create_loader()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.session.create_loader", lambda _path: loader)
        made = Aws()
        yield made
        made.close()


@pytest.fixture
def aws(server, monkeypatch, tmp_path):
    """An account with one group, and credentials for it in the environment."""
    server.reset()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    # Nothing of this machine's own, and nobody is asked for a role.
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    ec2 = server.client("ec2")
    server.group = ec2.create_security_group(GroupName="web", Description="x")["GroupId"]
    return server


@pytest.fixture
def minion(modules, monkeypatch, aws):
    """A minion whose pillar has the group kept."""

    def load(name="unit", test=False, **ingress):
        project = {"wsgi": "a.wsgi:application", "settings": "a.settings"}
        asked = {
            "minion": "unit",
            "group": aws.group,
            "region": REGION,
            "endpoint": aws.endpoint,
            **ingress,
        }
        pillar = {
            "ec2": {"ingress": asked if asked["group"] else None},
            "sites": {"a": {"server_names": ["a.example"], "project": project}},
        }
        loaded = modules(pillar={"nginx_uwsgi_django": pillar}, opts={"id": name}, test=test)
        monkeypatch.setattr(loaded.ec2_ingress, "_PAUSES", (0,))
        return loaded

    return load


def current(loaded):
    return loaded.states.ec2_ingress.current("nginx_uwsgi_django")


def rules(aws):
    """What the group lets in, and each rule's tags."""
    filters = [{"Name": "group-id", "Values": [aws.group]}]
    found = aws.client("ec2").describe_security_group_rules(Filters=filters)["SecurityGroupRules"]
    return {
        (rule["FromPort"], rule.get("CidrIpv4") or rule.get("CidrIpv6")): rule
        for rule in found
        if not rule["IsEgress"]
    }


def let_in(aws, port, cidr, description="by hand"):
    """A rule of somebody else's."""
    aws.client("ec2").authorize_security_group_ingress(
        GroupId=aws.group,
        IpPermissions=[
            {
                "IpProtocol": "tcp",
                "FromPort": port,
                "ToPort": port,
                "IpRanges": [{"CidrIp": cidr, "Description": description}],
            }
        ],
    )


def test_the_ports_are_let_in_once_described_and_tagged(minion, aws):
    done = current(minion())
    assert done["result"] is True, done["comment"]
    assert set(done["changes"]) == {f"tcp {p} from {r}" for p in (80, 443) for r in ALL}
    made = rules(aws)
    assert set(made) == {(port, one) for port in (80, 443) for one in ALL}
    for rule in made.values():
        assert rule["Description"] == "Django sites (nginx_uwsgi_django)"
        assert rule["Tags"] == [{"Key": "nginx_uwsgi_django:ingress", "Value": "unit"}]
    assert aws.actions.count("AuthorizeSecurityGroupIngress") == 1
    aws.actions.clear()
    again = current(minion())
    assert (again["result"], again["changes"]) == (True, {})
    assert set(aws.actions) == {"DescribeSecurityGroups", "DescribeSecurityGroupRules"}


def test_a_dry_run_asks_whether_it_would_be_allowed_and_writes_nothing(minion, aws):
    done = current(minion(test=True))
    assert done["result"] is None
    assert done["changes"]["tcp 80 from ::/0"] == {
        "old": None,
        "new": "Django sites (nginx_uwsgi_django)",
    }
    assert rules(aws) == {}
    assert aws.dry == ["AuthorizeSecurityGroupIngress"]
    assert current(minion())["result"] is True
    done = current(minion(test=True))
    assert (done["result"], done["changes"]) == (True, {})


def test_no_other_minion_asks_anything(minion, aws):
    for loaded in (minion("web2"), minion(group=None)):
        for state in (current, lambda one: one.states.ec2_ingress.sdk("x")):
            done = state(loaded)
            assert (done["result"], done["changes"]) == (True, {})
            assert "asked to keep no security group" in done["comment"]
        assert loaded.ec2_ingress.bring() == {"changes": {}, "others": []}
    assert aws.actions == []


def test_a_change_lets_in_before_it_revokes_and_only_what_is_ours(minion, aws):
    let_in(aws, 22, "192.0.2.1/32")
    let_in(aws, 8080, "10.0.0.0/8")
    assert current(minion())["result"] is True
    aws.actions.clear()
    done = current(minion(ports=[443, 8080], ranges=["10.0.0.0/8"]))
    assert done["result"] is True, done["comment"]
    assert "somebody else's: tcp 8080 from 10.0.0.0/8" in done["comment"]
    assert set(rules(aws)) == {(22, "192.0.2.1/32"), (8080, "10.0.0.0/8"), (443, "10.0.0.0/8")}
    changing = [one for one in aws.actions if not one.startswith(("Describe", "+"))]
    assert changing == ["AuthorizeSecurityGroupIngress", "RevokeSecurityGroupIngress"]
    # What somebody else has let in is still theirs, and goes with neither of us.
    done = minion().states.ec2_ingress.absent("x")
    assert done["result"] is True, done["comment"]
    assert set(rules(aws)) == {(22, "192.0.2.1/32"), (8080, "10.0.0.0/8")}
    again = minion().states.ec2_ingress.absent("x")
    assert (again["result"], again["changes"]) == (True, {})


def test_a_rule_that_another_minion_made_is_not_ours(minion, aws):
    assert current(minion("web2", minion="web2", ports=[80]))["result"] is True
    done = current(minion(ports=[443], ranges=["0.0.0.0/0"]))
    assert list(done["changes"]) == ["tcp 443 from 0.0.0.0/0"]
    assert minion().states.ec2_ingress.absent("x")["result"] is True
    assert set(rules(aws)) == {(80, one) for one in ALL}


def test_a_rule_of_ours_that_a_hand_has_changed_is_mended(minion, aws):
    assert current(minion(ranges=["0.0.0.0/0"]))["result"] is True
    for key, more in (
        ((80, "0.0.0.0/0"), {"FromPort": 81, "ToPort": 81}),
        ((443, "0.0.0.0/0"), {}),
    ):
        rule = {"IpProtocol": "tcp", "FromPort": key[0], "ToPort": key[0], "CidrIpv4": key[1]}
        rule.update({"Description": "oops", **more})
        found = rules(aws)[key]["SecurityGroupRuleId"]
        aws.client("ec2").modify_security_group_rules(
            GroupId=aws.group,
            SecurityGroupRules=[{"SecurityGroupRuleId": found, "SecurityGroupRule": rule}],
        )
    kept = rules(aws)[443, "0.0.0.0/0"]["SecurityGroupRuleId"]
    dry = current(minion(test=True, ranges=["0.0.0.0/0"]))
    assert dry["result"] is None
    aws.actions.clear()
    done = current(minion(ranges=["0.0.0.0/0"]))
    assert done["result"] is True, done["comment"]
    assert done["changes"] == dry["changes"]
    assert done["changes"]["tcp 443 from 0.0.0.0/0"]["old"] == "oops"
    made = rules(aws)
    assert {key: rule["Description"] for key, rule in made.items()} == {
        (80, "0.0.0.0/0"): "Django sites (nginx_uwsgi_django)",
        (443, "0.0.0.0/0"): "Django sites (nginx_uwsgi_django)",
    }
    assert made[443, "0.0.0.0/0"]["SecurityGroupRuleId"] == kept, "in place: it closed nothing"


def test_somebody_who_is_quicker_with_the_same_rule_is_no_error(minion, aws, monkeypatch):
    loaded = minion(ranges=["192.0.2.0/24"])
    asked = loaded.ec2_ingress._Group.rules
    late = []

    def rules_then_somebody(group):
        found = asked(group)
        # After the state's own question and before the call that makes the rules.
        late.append(None)
        if len(late) == 2:
            let_in(aws, 80, "192.0.2.0/24")
        return found

    monkeypatch.setattr(loaded.ec2_ingress._Group, "rules", rules_then_somebody)
    done = current(loaded)
    assert done["result"] is True, done["comment"]
    assert "somebody else's: tcp 80 from 192.0.2.0/24" in done["comment"]
    assert {key: rule.get("Tags", []) != [] for key, rule in rules(aws).items()} == {
        (80, "192.0.2.0/24"): False,
        (443, "192.0.2.0/24"): True,
    }


def policy():
    """The minimal policy of the documentation."""
    text = (FORMULA / "docs/ec2.md").read_text("utf-8")
    return json.loads(re.search(r"```json\n(.*?)```", text, re.DOTALL)[1])


def become(aws, monkeypatch, policy):
    """From now on who asks may what the policy says."""
    for statement in policy["Statement"]:
        # moto looks at actions alone.
        statement["Resource"] = "*"
        statement.pop("Condition", None)
    for name, value in aws.user(policy).items():
        monkeypatch.setenv(name, value)
    aws.enforce()


def all_that_it_does(minion):
    """Every kind of call: rules made, described anew, revoked."""
    for ingress in (
        {"ports": [80]},
        {"description": "other", "ports": [80, 443]},
        {"ports": [443]},
    ):
        done = current(minion(**ingress))
        assert done["result"] is True, done["comment"]


def test_the_documented_policy_allows_what_is_asked_and_no_more(minion, aws, monkeypatch):
    allowed = {action for statement in policy()["Statement"] for action in statement["Action"]}
    become(aws, monkeypatch, policy())
    all_that_it_does(minion)
    assert {f"ec2:{action.lstrip('+')}" for action in aws.actions} == allowed


@pytest.mark.parametrize("lost", ["Describe", "AuthorizeSecurityGroupIngress"])
def test_a_missing_permission_is_named_and_a_dry_run_knows(minion, aws, monkeypatch, lost):
    less = policy()
    for statement in less["Statement"]:
        statement["Action"] = [one for one in statement["Action"] if f"ec2:{lost}" not in one]
    less["Statement"] = [statement for statement in less["Statement"] if statement["Action"]]
    become(aws, monkeypatch, less)
    for test in (True, False):
        done = current(minion(test=test))
        assert done["result"] is False
        assert done["changes"] == {}
        assert f"the IAM action ec2:{lost}" in done["comment"]
        assert f"missing for {aws.group} in {REGION}" in done["comment"]


def test_the_action_that_aws_names_is_the_missing_one(minion, aws):
    words = (
        "You are not authorized to perform this operation. User: arn:aws:sts::1:x is not "
        "authorized to perform: ec2:CreateTags on resource: y because no identity-based policy "
        "allows the ec2:CreateTags action. Encoded authorization failure message: AbCdEf"
    )
    refused = (403, "UnauthorizedOperation", words)
    aws.refuse["AuthorizeSecurityGroupIngress"] = [refused]
    comment = current(minion())["comment"]
    assert comment.startswith("the IAM action ec2:CreateTags is missing")
    assert "AbCdEf" not in comment
    assert rules(aws) == {}


def test_a_throttled_call_is_made_again_and_one_throttled_for_ever_is_told(
    minion, aws, monkeypatch
):
    throttled = (503, "RequestLimitExceeded", "Request limit exceeded.")
    aws.refuse["AuthorizeSecurityGroupIngress"] = [throttled]
    done = current(minion())
    assert done["result"] is True, done["comment"]
    assert aws.actions.count("AuthorizeSecurityGroupIngress") == 2
    aws.refuse["DescribeSecurityGroupRules"] = [throttled] * 9
    loaded = minion()
    monkeypatch.setattr(loaded.ec2_ingress, "_ATTEMPTS", 2)
    done = current(loaded)
    assert done["result"] is False
    assert "throttles DescribeSecurityGroupRules in eu-central-1, 2 times" in done["comment"]
    assert len(aws.refuse["DescribeSecurityGroupRules"]) == 7


@pytest.mark.parametrize(
    ("ingress", "words"),
    [
        (
            {"group": "sg-00000000000000000"},
            "no security group sg-00000000000000000 in eu-central-1",
        ),
        ({"region": "us-east-1"}, "in us-east-1; expected one of this region and account"),
        ({"endpoint": "http://127.0.0.1:9"}, "is there a region 'eu-central-1'"),
        ({"region": None}, "this host is no EC2 instance"),
    ],
)
def test_a_wrong_place_is_told(minion, aws, monkeypatch, ingress, words):
    loaded = minion(**ingress)
    monkeypatch.setattr(loaded.ec2_ingress, "_ATTEMPTS", 1)
    monkeypatch.setattr(loaded.ec2_instance, "_FIRMWARE", ())
    done = current(loaded)
    assert done["result"] is False
    assert words in done["comment"]


def test_nobody_s_credentials_and_wrong_ones_are_told(minion, aws, monkeypatch):
    aws.refuse["DescribeSecurityGroups"] = [
        (401, "AuthFailure", "AWS was not able to validate the provided access credentials")
    ]
    assert "does not accept the credentials" in current(minion())["comment"]
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    done = current(minion())
    assert done["result"] is False
    assert "wants to know who asks" in done["comment"]


def test_what_else_aws_refuses_comes_in_its_own_words(minion, aws):
    words = "The maximum number of rules per security group has been reached."
    aws.refuse["AuthorizeSecurityGroupIngress"] = [
        (400, "RulesPerSecurityGroupLimitExceeded", words)
    ]
    done = current(minion())
    assert done["result"] is False
    assert words in done["comment"]


def test_rules_that_aws_does_not_show_afterwards_are_no_success(minion, aws, monkeypatch):
    loaded = minion()
    monkeypatch.setattr(loaded.ec2_ingress._Group, "rules", lambda group: [])
    done = current(loaded)
    assert (done["result"], done["changes"]) == (False, {})
    assert "done, and yet" in done["comment"]


def test_without_boto3_it_says_what_is_missing(minion, aws, monkeypatch):
    loaded = minion()
    monkeypatch.setattr(loaded.ec2_ingress, "_LEAST", (999, 0))
    assert loaded.ec2_ingress.installed() is None
    done = current(loaded)
    assert done["result"] is False
    assert "boto3>=999.0 is missing from Salt's Python" in done["comment"]
    dry = minion(test=True)
    monkeypatch.setattr(dry.ec2_ingress, "_LEAST", (999, 0))
    for state in ("sdk", "current"):
        done = getattr(dry.states.ec2_ingress, state)("x")
        assert done["result"] is None
        assert "boto3 would be installed" in done["comment"]
    assert aws.actions == []


def test_pip_s_own_words_are_told(minion, monkeypatch):
    loaded = minion()
    monkeypatch.setattr(loaded.ec2_ingress, "_LEAST", (999, 0))
    loaded.salt["pip.install"] = lambda pkgs: {"retcode": 1, "stderr": f"no {pkgs}", "stdout": ""}
    done = loaded.states.ec2_ingress.sdk("x")
    assert (done["result"], done["changes"]) == (False, {})
    assert "cannot be installed: no ['boto3>=999.0']" in done["comment"]


def test_an_orchestration_brings_its_own_mapping(minion, aws):
    loaded = minion(group=None)
    mapping = {"group": aws.group, "region": REGION, "endpoint": aws.endpoint, "ports": [80]}
    done = loaded.states.ec2_ingress.current("x", mapping)
    assert done["result"] is True, done["comment"]
    assert set(rules(aws)) == {(80, one) for one in ALL}
    with pytest.raises(CommandExecutionError, match=r"ec2:ingress:ports:0: found 0"):
        loaded.ec2_ingress.asked({**mapping, "ports": [0]})
    done = loaded.states.ec2_ingress.current("x", {"region": REGION})
    assert done["result"] is False
    assert "ec2:ingress:group" in done["comment"]


@pytest.mark.parametrize(
    ("ranges", "path", "words"),
    [
        (["10.0.0.1/8"], "ranges:0", "has host bits set"),
        (["::/0", "0::/0"], "ranges:1", "'0::/0'"),
        (["10.0.0.0/33"], "ranges:0", "10.0.0.0/33"),
    ],
)
def test_ranges_that_aws_would_take_for_others_are_errors(minion, ranges, path, words):
    (error,) = minion(ranges=ranges).site_pillar.check()
    assert error["path"] == f"nginx_uwsgi_django:ec2:ingress:{path}"
    assert words in error["found"]
