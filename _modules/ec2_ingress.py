"""
Who may reach the sites on EC2: the ingress rules of one security group, by AWS's own API.

A rule is ours when it carries our tag, which it gets in the very call that makes it, with the name
of the minion that keeps the group (of ``ec2:ingress:minion``). Nothing else is ever changed or removed. What is to come is let
in before anything is revoked, so that a change of the pillar closes no port that stays open.

Only the minion that the pillar names does anything; every other one has nothing to do.

boto3 is imported when AWS is first asked, and not before: on every other host it is not there.
:py:func:`install` puts it into Salt's own Python.

.. versionadded:: 0.1.0
"""

import importlib
import importlib.metadata
import ipaddress
import re
import sys
import time
from typing import Any

from salt.exceptions import CommandExecutionError

__virtualname__ = "ec2_ingress"

_TAG = "nginx_uwsgi_django:ingress"
_PACKAGE = "boto3"
#: The least version that is taken, of April 2025.
_LEAST = (1, 38)
# Throttled calls are made again by botocore's standard mode, which waits up to 1, 2, 4, 8 s.
_ATTEMPTS = 5
#: Seconds until the rules are asked for again: AWS does not always show at once what it has done.
_PAUSES = (0, 1, 2, 4)

_THROTTLED = ("RequestLimitExceeded", "Throttling", "ThrottlingException", "RequestThrottled")
_DENIED = ("UnauthorizedOperation", "AccessDenied", "AccessDeniedException")
_NO_GROUP = ("InvalidGroup.NotFound", "InvalidGroupId.Malformed")
_BAD_CREDENTIALS = (
    "AuthFailure",
    "ExpiredToken",
    "InvalidClientTokenId",
    "RequestExpired",
    "SignatureDoesNotMatch",
)


def __virtual__() -> str:
    return __virtualname__


# --- What the pillar asks for -----------------------------------------------------------------


def asked(ingress: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """
    What this minion is to keep.

    ingress
        a mapping as under ``ec2:ingress``, for an orchestration, which runs in one place; its
        ``minion`` may be left out. None: what the pillar says

    Returns a mapping with every default filled in; None when the pillar asks for nothing, or names
    another minion.

    Raises CommandExecutionError when the pillar, or the mapping, is not valid.

    CLI Example:

    .. code-block:: bash

        salt '*' ec2_ingress.asked
    """
    if ingress is not None:
        return __salt__["site_pillar.ingress"](ingress)
    wanted = __salt__["site_pillar.settings"]()["ec2"]["ingress"]
    return wanted if wanted and wanted["minion"] == __opts__["id"] else None


def installed() -> str | None:
    """
    The version of boto3 in Salt's own Python.

    Returns None when there is none, or one that is too old.

    CLI Example:

    .. code-block:: bash

        salt '*' ec2_ingress.installed
    """
    # A finder remembers what a directory had before pip wrote into it.
    importlib.invalidate_caches()
    try:
        version = importlib.metadata.version(_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return None
    return version if tuple(map(int, version.split(".")[:2])) >= _LEAST else None


def _requirement() -> str:
    return f"{_PACKAGE}>={'.'.join(map(str, _LEAST))}"


def install() -> str:
    """
    Install boto3 into Salt's own Python: a onedir's ``extras``, as ``salt-pip`` does, or the
    environment that Salt runs in.

    Returns the version that is there afterwards.

    Raises CommandExecutionError with the words of pip.

    CLI Example:

    .. code-block:: bash

        salt web1 ec2_ingress.install
    """
    # Salt's own function knows a onedir. https://docs.saltproject.io/salt/install-guide/en/latest/topics/onedir.html
    done = __salt__["pip.install"](pkgs=[_requirement()])
    version = installed()
    if done["retcode"] or version is None:
        words = (done["stderr"] or done["stdout"]).strip() or "pip said nothing"
        raise CommandExecutionError(f"{_requirement()} cannot be installed: {words[-2000:]}")
    return version


# --- Talking to AWS ---------------------------------------------------------------------------


class _Group:
    """One security group, asked and changed by whoever the credentials at hand belong to."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        if installed() is None:
            raise CommandExecutionError(
                f"{_requirement()} is missing from Salt's Python, {sys.executable}; the state "
                "nginx_uwsgi_django.ec2 installs it, as does ec2_ingress.install"
            )
        self.id = wanted["group"]
        self.region = wanted["region"] or _own_region()
        self.errors = importlib.import_module("botocore.exceptions")
        config = importlib.import_module("botocore.config").Config(
            connect_timeout=5,
            read_timeout=20,
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        )
        try:
            # A session of its own: the default one is shared with whatever else runs in Salt.
            self.client = (
                importlib.import_module(_PACKAGE)
                .session.Session()
                .client(
                    "ec2",
                    region_name=self.region,
                    endpoint_url=wanted["endpoint"],
                    config=config,
                )
            )
        except (self.errors.BotoCoreError, ValueError) as error:
            raise CommandExecutionError(f"AWS cannot be asked: {error}") from None

    def call(self, operation: str, dry: bool = False, **arguments: Any) -> dict[str, Any]:
        """
        One operation, by its name in boto3. With ``dry`` AWS says whether it would be allowed, and
        does nothing.
        """
        if dry:
            arguments["DryRun"] = True
        try:
            return getattr(self.client, operation)(**arguments)
        except self.errors.ClientError as error:
            if dry and error.response["Error"]["Code"] == "DryRunOperation":
                return {}
            raise _Refused(self._sentence(operation, error), error) from None
        except self.errors.EndpointConnectionError as error:
            raise CommandExecutionError(
                f"{error}: is there a region {self.region!r}, and a way to it from here?"
            ) from None
        except (self.errors.NoCredentialsError, self.errors.PartialCredentialsError) as error:
            raise CommandExecutionError(
                f"AWS wants to know who asks, and Salt has nothing to say: {error}. Expected a role "
                "of this instance, or credentials where boto3 looks for them (docs/ec2.md)"
            ) from None
        except self.errors.BotoCoreError as error:
            raise CommandExecutionError(f"AWS was asked {self._api(operation)}: {error}") from None

    def _api(self, operation: str) -> str:
        return str(self.client.meta.method_to_api_mapping[operation])

    def _sentence(self, operation: str, error: Any) -> str:
        code = error.response["Error"]["Code"]
        # After it comes a text that only sts:DecodeAuthorizationMessage reads.
        words = error.response["Error"].get("Message", "").partition("Encoded authorization")[0]
        words = f"{code}: {words.strip()}"
        where = f"{self.id} in {self.region}"
        if code in _DENIED:
            # AWS names the action where it is another than the call's, as ec2:CreateTags.
            named = re.search(r"not authorized to perform: ([a-z0-9]+:\w+)", words)
            action = named[1] if named else f"ec2:{self._api(operation)}"
            return f"the IAM action {action} is missing for {where} (docs/ec2.md); AWS says {words}"
        if code in _NO_GROUP:
            return (
                f"ec2:ingress:group: there is no security group {where}; expected one of this "
                f"region and account; AWS says {words}"
            )
        if code in _BAD_CREDENTIALS:
            return (
                f"AWS does not accept the credentials at hand in {self.region} (expired, of "
                f"another partition, or a clock that is wrong?); AWS says {words}"
            )
        if code in _THROTTLED:
            return (
                f"AWS throttles {self._api(operation)} in {self.region}, {_ATTEMPTS} times in a "
                f"row; try again later; AWS says {words}"
            )
        return f"{self._api(operation)} for {where} failed; AWS says {words}"

    def rules(self) -> list[dict[str, Any]]:
        """The group's ingress rules, as AWS describes them."""
        # Of a group that is not there, the rules are an empty list.
        self.call("describe_security_groups", GroupIds=[self.id])
        found: list[dict[str, Any]] = []
        more: dict[str, Any] = {}
        while True:
            answer = self.call(
                "describe_security_group_rules",
                Filters=[{"Name": "group-id", "Values": [self.id]}],
                MaxResults=1000,
                **more,
            )
            found += answer["SecurityGroupRules"]
            if not answer.get("NextToken"):
                return [rule for rule in found if not rule["IsEgress"]]
            more = {"NextToken": answer["NextToken"]}


class _Refused(CommandExecutionError):
    """What AWS has refused; ``code`` is its own word for why."""

    def __init__(self, message: str, error: Any) -> None:
        super().__init__(message)
        self.code = error.response["Error"]["Code"]


def _own_region() -> str:
    endpoint = __salt__["site_pillar.settings"]()["ec2"]["metadata"]
    region = __salt__["ec2_instance.facts"](endpoint).get("region")
    if not region:
        raise CommandExecutionError(
            "ec2:ingress:region: this host is no EC2 instance, whose own region it could be; "
            "expected the name of one, such as eu-central-1"
        )
    return str(region)


# --- What is to be done -----------------------------------------------------------------------


def _range(text: str) -> str:
    return str(ipaddress.ip_network(text))


def _wanted_rules(wanted: dict[str, Any]) -> list[tuple[int, str]]:
    return [(port, _range(one)) for port in wanted["ports"] for one in wanted["ranges"]]


def _key(rule: dict[str, Any]) -> tuple[int, str] | None:
    """(port, range) of a rule for one TCP port and one range; None for any other rule."""
    cidr = rule.get("CidrIpv4") or rule.get("CidrIpv6")
    if rule["IpProtocol"] != "tcp" or rule["FromPort"] != rule["ToPort"] or not cidr:
        return None
    return rule["FromPort"], _range(cidr)


def _label(rule: dict[str, Any]) -> str:
    source = rule.get("CidrIpv4") or rule.get("CidrIpv6") or rule.get("PrefixListId")
    source = source or rule.get("ReferencedGroupInfo", {}).get("GroupId", "elsewhere")
    first, last = rule["FromPort"], rule["ToPort"]
    ports = "" if first == -1 else f" {first}" if first == last else f" {first}-{last}"
    return f"{'all' if rule['IpProtocol'] == '-1' else rule['IpProtocol']}{ports} from {source}"


class _Plan:
    """What has to be done to a group's rules."""

    def __init__(self, rules: list[dict[str, Any]], wanted: dict[str, Any], keep: bool) -> None:
        target = _wanted_rules(wanted) if keep else []
        self.tag = {"Key": _TAG, "Value": wanted["minion"]}
        ours = [rule for rule in rules if self.tag in rule.get("Tags", [])]
        there = {_key(rule) for rule in rules}
        self.description = wanted["description"]
        self.add = [key for key in target if key not in there]
        self.revoke = [rule for rule in ours if _key(rule) not in target]
        self.describe = [
            rule
            for rule in ours
            if _key(rule) in target and rule.get("Description") != self.description
        ]
        self.others = [_label(rule) for rule in rules if _key(rule) in target and rule not in ours]

    def changes(self) -> dict[str, Any]:
        """A mapping from what a rule lets in to its description, ``old`` and ``new``."""
        found: dict[str, Any] = {}
        for port, one in self.add:
            found[f"tcp {port} from {one}"] = {"old": None, "new": self.description}
        for rule in self.describe:
            found[_label(rule)] = {"old": rule.get("Description"), "new": self.description}
        for rule in self.revoke:
            found[_label(rule)] = {"old": rule.get("Description", ""), "new": None}
        return found


def _permissions(keys: list[tuple[int, str]], description: str) -> list[dict[str, Any]]:
    """The rules as the call that makes them wants them: by port."""
    made: dict[int, dict[str, Any]] = {}
    for port, one in keys:
        entry = made.setdefault(port, {"IpProtocol": "tcp", "FromPort": port, "ToPort": port})
        ranges, key = ("Ipv6Ranges", "CidrIpv6") if ":" in one else ("IpRanges", "CidrIp")
        entry.setdefault(ranges, []).append({key: one, "Description": description})
    return list(made.values())


def _carry_out(group: _Group, plan: _Plan, dry: bool) -> None:
    if plan.add:
        group.call(
            "authorize_security_group_ingress",
            dry,
            GroupId=group.id,
            IpPermissions=_permissions(plan.add, plan.description),
            TagSpecifications=[{"ResourceType": "security-group-rule", "Tags": [plan.tag]}],
        )
    if plan.describe:
        # Not revoked and made anew: the port would be closed in between.
        group.call(
            "modify_security_group_rules",
            dry,
            GroupId=group.id,
            SecurityGroupRules=[
                {
                    "SecurityGroupRuleId": rule["SecurityGroupRuleId"],
                    "SecurityGroupRule": {
                        **{
                            key: rule[key]
                            for key in ("IpProtocol", "FromPort", "ToPort", "CidrIpv4", "CidrIpv6")
                            if rule.get(key) is not None
                        },
                        "Description": plan.description,
                    },
                }
                for rule in plan.describe
            ],
        )
    if plan.revoke:
        group.call(
            "revoke_security_group_ingress",
            dry,
            GroupId=group.id,
            SecurityGroupRuleIds=[rule["SecurityGroupRuleId"] for rule in plan.revoke],
        )


def pending(
    keep: bool = True, ingress: dict[str, Any] | None = None, rehearse: bool = False
) -> dict[str, Any]:
    """
    What of the group's rules is not as it is to be.

    keep
        False: no rule of ours is to be there
    ingress
        as in :py:func:`asked`
    rehearse
        ask AWS also whether it would allow what is to be done; nothing is done

    Returns a mapping of ``changes`` (from what a rule lets in, as ``tcp 443 from ::/0``, to its
    description, ``old`` and ``new``, None where there is no such rule) and ``others`` (what is to
    be let in, and is by a rule that is not ours). Both are empty on a minion that is not asked.

    Raises CommandExecutionError in words for an operator: what is missing (boto3, credentials, an
    IAM action, the group, the region), or that AWS throttles.

    CLI Example:

    .. code-block:: bash

        salt web1 ec2_ingress.pending
    """
    wanted = asked(ingress)
    if wanted is None:
        return {"changes": {}, "others": []}
    group = _Group(wanted)
    plan = _Plan(group.rules(), wanted, keep)
    if rehearse:
        _carry_out(group, plan, dry=True)
    return {"changes": plan.changes(), "others": plan.others}


def bring(keep: bool = True, ingress: dict[str, Any] | None = None) -> dict[str, Any]:
    """
    Bring the group's rules to what is asked for, and look again until AWS shows it.

    keep, ingress
        as in :py:func:`pending`

    Returns what :py:func:`pending` does, of what was not as it should be when AWS was last asked.

    Raises CommandExecutionError as :py:func:`pending` does.

    CLI Example:

    .. code-block:: bash

        salt web1 ec2_ingress.bring
    """
    wanted = asked(ingress)
    if wanted is None:
        return {"changes": {}, "others": []}
    group = _Group(wanted)
    plan = _Plan(group.rules(), wanted, keep)
    try:
        _carry_out(group, plan, dry=False)
    except _Refused as refused:
        if refused.code != "InvalidPermission.Duplicate":
            raise
        # Somebody else was quicker with one of them; the call makes all its rules or none.
        _carry_out(group, _Plan(group.rules(), wanted, keep), dry=False)
    for pause in _PAUSES:
        time.sleep(pause)
        plan = _Plan(group.rules(), wanted, keep)
        if not plan.changes():
            break
    return {"changes": plan.changes(), "others": plan.others}
