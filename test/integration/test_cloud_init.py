"""
From a bare image to a served site by Debian's own cloud-init, with the example's user-data; what an
operator sees when it fails, what a load balancer sees until it is done, and when the host goes.
"""

import json
import subprocess
import threading
import time

import pytest
import yaml

from ..aws import REGION, Aws
from ..hosts import network
from ..hosts.paths import FORMULA
from ..hosts.salts import program

pytestmark = pytest.mark.long

SEED = "/var/lib/cloud/seed/nocloud"
STAMP = "/var/lib/nginx_uwsgi_django/converged"
HEALTH = "/-/health"


def pillar(site=None, **project):
    example = yaml.safe_load((FORMULA / "pillar.example").read_text("utf-8"))
    formula = example["nginx_uwsgi_django"]
    formula["nginx"]["health"] = {"path": HEALTH, "drain": 4}
    formula["sites"]["mysite"]["project"].update(project)
    formula["sites"]["mysite"].update(site or {})
    return json.dumps(example)


@pytest.fixture(scope="module")
def aws():
    made = Aws(network.gateway())
    made.client("s3").create_bucket(
        Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    yield made
    made.close()


@pytest.fixture(scope="module")
def instance(aws):
    """The ID of an instance that can be tagged."""
    run = aws.client("ec2").run_instances(ImageId="ami-12c6146b", MinCount=1, MaxCount=1)
    return run["Instances"][0]["InstanceId"]


@pytest.fixture(scope="module")
def image(host, aws, instance):
    """A host with cloud-init and its seed, as it is before its first boot as an instance."""
    host.run("apt-get", "-q", "update", timeout=300)
    host.run(
        "DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install cloud-init git",
        timeout=600,
    )
    # Salt is installed once for all hosts: its own installation is what test_apply is about.
    host.run("ln", "-s", program("3008", "salt-call"), "/usr/local/bin/salt-call")
    text = (FORMULA / "examples/cloud-init/user-data").read_text("utf-8")
    config = yaml.safe_load(text)["write_files"][0]["content"]
    own = json.dumps(
        {
            "formula": {"git": "file:///srv/git/formula", "revision": "v1"},
            "pillar": {"s3": "s3://bucket/pillar/mysite.sls"},
            "tag": "nginx_uwsgi_django",
            "endpoint": aws.moto,
        }
    )
    user_data = yaml.safe_load(text)
    user_data["write_files"][0]["content"] = own
    assert json.loads(config).keys() == json.loads(own).keys()
    host.write(f"{SEED}/user-data", f"#cloud-config\n{json.dumps(user_data)}\n")
    said = host.run(
        "cloud-init", "schema", "--config-file", "/srv/formula/examples/cloud-init/user-data"
    )
    assert "Valid" in said.stdout
    host.write(f"{SEED}/meta-data", json.dumps({"instance-id": instance, "region": REGION}))
    host.write(
        "/etc/cloud/cloud.cfg.d/99-seed.cfg",
        "datasource_list: [NoCloud]\nnetwork: {config: disabled}\nmanage_etc_hosts: false\n"
        "preserve_hostname: true\napt_preserve_sources_list: true\n",
    )
    host.write(
        "/root/.aws/credentials", "[default]\naws_access_key_id=x\naws_secret_access_key=x\n"
    )
    files = subprocess.run(
        ["git", "ls-files", "-z"], cwd=FORMULA, capture_output=True, text=True, check=True
    ).stdout
    host.write("/root/files", files)
    host.run(
        "mkdir -p /srv/git/formula && cd /srv/git/formula && git init -q && "
        "tar -C /srv/formula --null -T /root/files -c | tar -x && git add -A && "
        "git -c user.name=x -c user.email=x@example.org commit -qm x && git tag v1"
    )
    return host


def put(aws, text):
    aws.client("s3").put_object(Bucket="bucket", Key="pillar/mysite.sls", Body=text.encode())


def brought_up(host):
    """Boot it, wait for cloud-init, and return its status and what it printed meanwhile."""
    host.run("rm", "-f", "/var/log/cloud-init-output.log")
    # All of it is part of the boot.
    host.reboot(timeout=600)
    done = host.run("cloud-init", "status", "--wait", "--long", check=False, timeout=600)
    return done, host.read("/var/log/cloud-init-output.log")


def tag(aws, instance):
    filters = [
        {"Name": "resource-id", "Values": [instance]},
        {"Name": "key", "Values": ["nginx_uwsgi_django"]},
    ]
    (found,) = aws.client("ec2").describe_tags(Filters=filters)["Tags"]
    return found["Value"]


class Watch:
    """Asks for the health path and the page, as a load balancer would, and remembers."""

    def __init__(self, host):
        self.host, self.seen, self.going = host, [], True
        self.thread = threading.Thread(target=self._watch)

    def _watch(self):
        while self.going:
            answers = []
            for path in (HEALTH, "/"):
                try:
                    answers.append(self.host.get(path, "a.compute.amazonaws.com", timeout=5)[0])
                except OSError:
                    answers.append(None)
            stamp = self.host.root / STAMP[1:]
            self.seen.append((answers[0], answers[1], stamp.exists()))
            time.sleep(0.05)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.going = False
        self.thread.join()


def test_a_failure_is_where_an_operator_looks(image, aws, instance):
    put(aws, pillar(wsgi="no such thing"))
    done, said = brought_up(image)
    assert done.returncode == 1, done.stdout + said
    assert "status: error" in done.stdout
    assert "sites:mysite:project:wsgi" in said
    assert "Nothing was changed" in said
    assert tag(aws, instance).startswith("failed: bin/apply: ")
    assert image.read("/run/nginx_uwsgi_django/drain") == "not brought up yet\n"


def test_a_site_that_fails_leaves_the_instance_out_of_its_load_balancer(image, aws, instance):
    put(aws, pillar(wsgi="mysite.nothing:application"))
    with Watch(image) as watch:
        done, said = brought_up(image)
    assert done.returncode == 1
    assert "FAILED " in tag(aws, instance), said
    assert 200 not in [health for health, _, _ in watch.seen]


def test_an_instance_serves_and_answers_the_health_check_only_then(image, aws, instance):
    put(aws, pillar())
    with Watch(image) as watch:
        done, said = brought_up(image)
        assert done.returncode == 0, said
        assert image.get(HEALTH, "10.0.0.7")[0] == 200
    assert "status: done" in done.stdout
    assert tag(aws, instance) == "as its pillar says"
    # While it was being brought up the page was there before the instance was said to be.
    assert (503, 200, False) in watch.seen
    assert [one for one in watch.seen if one[0] == 200 and one[1:] != (200, True)] == []


def test_a_shutdown_drains_and_the_next_boot_changes_nothing(image, aws, instance):
    image.run("rm", "-rf", "/srv/git/formula/test")
    units = "systemctl show 'uwsgi-mysite@*' --property=Id"
    before = image.run(units).stdout
    with Watch(image) as watch:
        done, said = brought_up(image)
    assert done.returncode == 0, said
    assert "nothing to change" in said
    assert image.run(units).stdout == before
    # Health is refused while the page is served, for as long as the pillar says, and both end.
    health = [one[:2] for one in watch.seen]
    drained = health.index((503, 200))
    assert set(health[:drained]) == {(200, 200)}
    gone = next(n for n, one in enumerate(health) if n > drained and one[1] != 200)
    assert gone - drained > 10
    assert set(health[drained:gone]) <= {(503, 200), (None, 200)}
    # It had been brought up once: after the boot it is there again at once.
    assert health[-1] == (200, 200)
    assert 503 not in [one[0] for one in health[gone + 1 :]]


def test_sources_that_are_away_change_nothing_and_are_told(image, aws, instance):
    image.run("mv", "/srv/git/formula", "/srv/git/away")
    done, said = brought_up(image)
    image.run("mv", "/srv/git/away", "/srv/git/formula")
    assert done.returncode == 1
    assert "git" in tag(aws, instance)
    assert image.get(HEALTH, "10.0.0.7")[0] == 200


def test_a_load_balancer_says_what_came_by_https_and_django_knows(image, aws, instance):
    # By hand, without a boot.
    site = {"load_balancer": {"addresses": [network.gateway()]}}
    put(aws, pillar(site, env={"DJANGO_HTTPS": "1"}))
    image.run("/var/lib/cloud/scripts/per-boot/nginx_uwsgi_django", timeout=300)
    assert tag(aws, instance) == "as its pillar says"
    url, name = f"http://{image.address}/", "a.compute.amazonaws.com"
    head = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", "-H"]
    head += [f"Host: {name}", url]
    https = [*head, "-H", "X-Forwarded-Proto: https"]
    # From this machine, which the pillar names, and from the host itself, which it does not.
    asked = {"capture_output": True, "text": True, "check": True, "timeout": 30}
    assert subprocess.run(https, **asked).stdout == "200 "
    assert subprocess.run(head, **asked).stdout == f"301 https://{name}/"
    image.run("apt-get", "-q", "-y", "--no-install-recommends", "install", "curl", timeout=300)
    assert image.run(*https).stdout == f"301 https://{name}/"
    # The project knows the site's names from its environment, and no other.
    assert image.get("/", "else.example.org")[0] == 400
    # Nobody's browser: that question is not redirected.
    assert image.get(HEALTH, "else.example.org")[0] == 200


def test_the_formula_from_s3_and_the_pillar_from_git(image, aws, instance):
    # By hand, without a boot.
    put(aws, "not this one")
    image.run("git -C /srv/git/formula archive --output=/root/formula.tar v1")
    archive = (image.root / "root/formula.tar").read_bytes()
    aws.client("s3").put_object(Bucket="bucket", Key="formula.tar", Body=archive)
    image.run("mkdir -p /srv/git/pillar/sites")
    image.write("/srv/git/pillar/sites/web.sls", pillar({"headers": {"X-From": "git"}}))
    image.run(
        "cd /srv/git/pillar && git init -q && git add -A && "
        "git -c user.name=x -c user.email=x@example.org commit -qm x && git tag v1"
    )
    path = "/etc/nginx_uwsgi_django/bootstrap.json"
    config = json.loads(image.read(path))
    config["formula"] = {"s3": "s3://bucket/formula.tar"}
    config["pillar"] = {
        "git": "file:///srv/git/pillar",
        "revision": "v1",
        "path": "sites/web.sls",
    }
    image.write(path, json.dumps(config))
    image.run("rm", "-rf", "/var/lib/nginx_uwsgi_django/formula")
    image.run("/var/lib/cloud/scripts/per-boot/nginx_uwsgi_django", timeout=300)
    assert tag(aws, instance) == "as its pillar says"
    assert not image.exists("/var/lib/nginx_uwsgi_django/formula/.git")
    assert image.exists("/var/lib/nginx_uwsgi_django/formula/FORMULA")
    told = image.run(
        "curl", "-sS", "-i", "-H", "Host: a.compute.amazonaws.com", "http://127.0.0.1/"
    )
    assert "X-From: git" in told.stdout
