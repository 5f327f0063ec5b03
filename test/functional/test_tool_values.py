"""
No value is ever code: nginx, uWSGI and systemd themselves read what is written for them, many values
at a time, and what they understood is compared with what was meant.
"""

import json
import re
from typing import Any

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

from _nud import contract, nginx_language, systemd, uwsgi_ini, uwsgi_unit

from ..hosts.host import Host
from ..hosts.paths import FORMULA
from ..modules import Modules
from ..unit.test_nginx_tree import with_files
from ..values import LINES, TEXTS, made, placed, sites

DIGEST = "0123456789ab"


@pytest.fixture(scope="module")
def tools(host: Host) -> Host:
    host.install("nginx", "uwsgi-core")
    host.run("systemctl stop nginx")
    return host


@pytest.fixture(scope="module")
def plain() -> Modules:
    return Modules(pillar=pillar({}))


@pytest.fixture(scope="module")
def count(full: bool) -> int:
    return 5000 if full else 250


def pillar(whole: dict[str, Any]) -> dict[str, Any]:
    return {"nginx_uwsgi_django": {"nginx": {"user": "www-data"}, "sites": whole}}


def carried(function: Any, values: list[str], *errors: type[Exception], **given: Any) -> list[Any]:
    """(value, what is written for it) for each value that is not refused."""
    found = []
    for value in values:
        try:
            found.append((value, function(value, **given)))
        except errors:
            continue
    # A function that refuses everything would pass every test below.
    assert len(found) > len(values) / 4
    return found


def answers(host: Host, script: str, **given: Any) -> Any:
    """What a Python script prints as JSON on the host; `given` are its globals."""
    host.write("/tmp/given.json", json.dumps(given))
    head = "import json; globals().update(json.load(open('/tmp/given.json')))\n"
    host.write("/tmp/script.py", head + script)
    return json.loads(host.run("python3", "/tmp/script.py", timeout=300).stdout)


# --- nginx -------------------------------------------------------------------------------------

ASK = """
import http.client
connection = http.client.HTTPConnection("127.0.0.1", 8099)
said = []
for number in range(count):
    connection.request("GET", f"/{number}")
    said.append(connection.getresponse().read().decode())
print(json.dumps(said))
"""


def test_nginx_says_each_quoted_value_as_it_was(
    tools: Host, plain: Modules, count: int, seed: int
) -> None:
    words = carried(nginx_language.quote, made(TEXTS, count, seed), CommandExecutionError)
    locations = "\n".join(
        f"location = /{number} {{ return 200 {word}; }}" for number, (_, word) in enumerate(words)
    )
    tools.write(
        "/tmp/values.conf",
        "pid /tmp/values.pid; error_log /tmp/values.log; events {} http { access_log off; "
        f"keepalive_requests 100000; server {{ listen 8099;\n{locations}\n}} }}\n",
    )
    tools.run("nginx", "-q", "-c", "/tmp/values.conf")
    try:
        said = answers(tools, ASK, count=len(words))
    finally:
        tools.run("nginx", "-q", "-c", "/tmp/values.conf", "-s", "quit")
    assert said == [value for value, _ in words]


# --- uWSGI -------------------------------------------------------------------------------------


def shown(host: Host, text: str) -> list[tuple[str, str]]:
    """What uWSGI itself makes of an ini: options in their order."""
    host.write("/tmp/values.ini", text)
    said = host.run(
        "uwsgi-core", "--ini", "/tmp/values.ini", "--show-config", "--no-server", timeout=60
    ).stderr
    whole = said.split("[uwsgi]\n", 1)[1].split("\n;end of configuration", 1)[0]
    pairs = [line.partition(" = ")[::2] for line in whole.split("\n")]
    assert pairs[0] == ("ini", "/tmp/values.ini")
    assert pairs[-2:] == [("show-config", "true"), ("no-server", "true")]
    return pairs[1:-2]


def test_uwsgi_reads_each_escaped_value_as_it_was(
    tools: Host, plain: Modules, count: int, seed: int
) -> None:
    values = [*made(TEXTS, count, seed), *map(str, range(-1, 3)), "true", "false"]
    words = carried(uwsgi_ini.escape, values, SaltInvocationError)
    text = "[uwsgi]\n" + "".join(f"touch-workers-reload = {word}\n" for _, word in words)
    assert shown(tools, text) == [("touch-workers-reload", value) for value, _ in words]


# --- systemd -----------------------------------------------------------------------------------

SPLIT = 200  # words of one command line; systemd has a limit on a line's length

ARGUMENTS = """
import subprocess, time
def run(*argv):
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout
run("systemctl", "daemon-reload")
said = []
for unit in units:
    run("systemctl", "start", unit)
    said += json.load(open("/tmp/argv.json"))
print(json.dumps(said))
"""


def test_systemd_hands_over_each_escaped_word_as_it_was(
    tools: Host, plain: Modules, count: int, seed: int
) -> None:
    words = carried(systemd.escape, made(TEXTS, count, seed), CommandExecutionError, command=True)
    units = []
    tools.write(
        "/tmp/argv.py", "import json, sys\njson.dump(sys.argv[1:], open('/tmp/argv.json', 'w'))\n"
    )
    for start in range(0, len(words), SPLIT):
        line = " ".join(word for _, word in words[start : start + SPLIT])
        units.append(f"values-{start}.service")
        tools.run("mkdir -p /run/systemd/system")
        tools.run(
            "cat > /run/systemd/system/" + units[-1],
            input=f"[Service]\nType=oneshot\nExecStart=/usr/bin/python3 /tmp/argv.py {line}\n",
        )
    assert answers(tools, ARGUMENTS, units=units) == [value for value, _ in words]


ENVIRONMENT = """
import subprocess, os
os.chmod("/tmp/values.env", 0o600)
print(subprocess.run(
    ["systemd-run", "--quiet", "--wait", "--pipe", "-p", "EnvironmentFile=/tmp/values.env",
     "-p", "User=www-data", "/usr/bin/python3", "-c",
     "import json, os; print(json.dumps(dict(os.environ)))"],
    check=True, capture_output=True, text=True).stdout)
"""


def test_the_environment_arrives_byte_for_byte(tools: Host, count: int, seed: int) -> None:
    """Every value that the pillar's contract takes for one, not only those that can be written."""
    node = contract.SITE.keys["project"].keys["env"].value
    values = [value for value in made(LINES, count, seed) if node.wrong(value) is None]
    assert len(values) > count / 2
    wanted = {f"VALUE_{number}": value for number, value in enumerate(values)}
    tools.write("/tmp/values.env", uwsgi_unit.environment_file(wanted))
    said = answers(tools, ENVIRONMENT)
    assert {key: value for key, value in said.items() if key.startswith("VALUE_")} == wanted


# --- Whole sites -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(full: bool, seed: int) -> Modules:
    """Modules whose pillar has as many sites as the contract lets through of what was made."""
    total = 1000 if full else 40
    # hypothesis begins with the simplest.
    candidates = made(sites(), total * 2, seed)[-total:]
    whole = {
        f"s{number}": placed(site, f"s{number}", 10000 + number)
        for number, site in enumerate(candidates)
    }
    together = with_files(Modules(pillar=pillar(whole)), FORMULA)
    for error in together.site_pillar.check():
        # Two names of one site that are the same to nginx, like .a and a.
        found = re.match(
            r"nginx_uwsgi_django:sites:([^:]+):(server_names|project:path)", error["path"]
        )
        assert found, error
        whole.pop(found[1], None)
    assert len(whole) > total / 2
    together = with_files(Modules(pillar=pillar(whole)), FORMULA)
    assert together.site_pillar.check() == []
    return together


def test_nginx_accepts_every_site_that_the_contract_accepts(tools: Host, many: Modules) -> None:
    servers = "\n".join(
        many.nginx_site.render(name) for name in many.site_pillar.settings()["sites"]
    )
    tools.write(
        "/tmp/sites.conf",
        "pid /tmp/values.pid; error_log /tmp/values.log; "
        # Each site listens on a port of its own, and nginx wants a connection for every one.
        "worker_rlimit_nofile 65536; events { worker_connections 16384; } http { "
        "server_names_hash_bucket_size 1024; server_names_hash_max_size 65536;\n"
        # As http.conf.jinja has it; what else stands there is of other tests.
        'map "$host $http_host" $nginx_uwsgi_django_host { default $host; }\n'
        'map $host $nginx_uwsgi_django_proof { default ""; }\n'
        + servers.replace("include uwsgi_params", "include /etc/nginx/uwsgi_params")
        + "}\n",
    )
    said = tools.run("nginx", "-t", "-c", "/tmp/sites.conf", check=False)
    assert said.returncode == 0, said.stderr
    assert "emerg" not in said.stderr


def test_uwsgi_reads_every_option_of_every_site_as_the_pillar_has_it(
    tools: Host, many: Modules
) -> None:
    # All sites' lines in one file: their values are what is looked at.
    lines, wanted = [], []
    for each in many.site_pillar.settings()["sites"].values():
        text = uwsgi_ini.render(each, each["project"]["path"])
        lines += [line for line in text.split("\n") if line.startswith(tuple(OPTIONS))]
        options = each["uwsgi"]["options"]
        wanted += [(key, options[key]) for key in sorted(options)]
        wanted_here = [("chdir", each["project"]["path"]), ("module", each["project"]["wsgi"])]
        lines += [line for line in text.split("\n") if line.startswith(("chdir =", "module ="))]
        wanted += wanted_here
    # chdir and module mean something to a uWSGI that starts: another option carries their values.
    carrier = [re.sub(r"^(chdir|module) =", "touch-chain-reload =", line) for line in lines]
    found = shown(tools, "[uwsgi]\n" + "\n".join(carrier) + "\n")
    meant = [
        ("touch-chain-reload" if key in ("chdir", "module") else key, value)
        for key, value in wanted
    ]
    assert found == meant


OPTIONS = ("touch-workers-reload", "static-index", "procname-prefix")

UNITS = """
import os, subprocess
for name in units:
    with open("/run/systemd/system/" + name, "w") as stream:
        stream.write(units[name])
subprocess.run(["systemctl", "daemon-reload"], check=True)
shown = subprocess.run(
    ["systemctl", "show", "-p", properties, *units], check=True, capture_output=True, text=True)
verified = subprocess.run(
    ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True,
    env={**os.environ, "LC_ALL": "C"})
print(json.dumps([shown.stdout.split("\\n\\n"), verified.stderr.splitlines()]))
"""


def test_systemd_understands_every_site_s_units_as_they_are_meant(
    tools: Host, many: Modules
) -> None:
    units: dict[str, str] = {}
    meant = []
    for name, each in many.site_pillar.settings()["sites"].items():
        venv = {"path": "/usr", "uwsgi": "/bin/true", "binary": "/usr/bin/python3"}
        release = {"path": each["project"]["path"], "id": "x"}
        unit = f"uwsgi-{name}@{DIGEST}.service"
        plan = uwsgi_unit.Plan(
            site=each,
            release=release,
            venv=venv,
            lookup=many.site_pillar.settings()["lookup"],
            shared=many.django_release.directories(name)["shared"],
            home=many.system_account.home(name),
            log=many.uwsgi_log.path(name),
        )
        units[unit] = uwsgi_unit.unit_text(plan, DIGEST)
        socket, anchor = many.uwsgi_socket.unit_files(name).items()
        units[f"uwsgi-{name}.socket"] = socket[1]
        units[f"uwsgi-{name}.service"] = anchor[1]
        shared = plan.shared
        meant.append(
            {
                "Id": unit,
                "User": name,
                "Group": name,
                "EnvironmentFiles": f"/etc/uwsgi/{name}/{DIGEST}.env (ignore_errors=no)",
                "ReadWritePaths": " ".join(
                    f"-{path}" for path in dict.fromkeys((each["project"]["path"], shared))
                ),
                "argv": f"/bin/true --ini /etc/uwsgi/{name}/{DIGEST}.ini",
                "LimitNOFILE": str(each["uwsgi"]["limits"].get("LimitNOFILE", "")),
                "Listen": f"{each['socket']['path']} (Stream)",
            }
        )
    properties = "Id,User,Group,EnvironmentFiles,ReadWritePaths,ExecStart,LimitNOFILE,Listen"
    said, complaints = answers(tools, UNITS, units=units, properties=properties)
    # Nothing that a unit says is unknown to systemd, malformed, or of a specifier that is none.
    wrong = r"Unknown|Invalid|Failed to (?!add|start)|Missing|ignoring|Bad|not absolute|specifier"
    assert [line for line in complaints if re.search(wrong, line)] == []
    understood = {}
    for block in said:
        pairs = dict(line.partition("=")[::2] for line in block.strip().splitlines())
        understood[pairs["Id"]] = pairs
    for one in meant:
        name = one["User"]
        found = understood[one["Id"]]
        listen = understood[f"uwsgi-{name}.socket"]["Listen"]
        argv = re.search(r"argv\[\]=(.*?) ; ignore", found["ExecStart"])
        seen = {**{key: found.get(key) for key in one}, "Listen": listen}
        assert argv is not None
        seen["argv"] = argv[1]
        if not one["LimitNOFILE"]:
            seen["LimitNOFILE"] = ""
        assert seen == one
