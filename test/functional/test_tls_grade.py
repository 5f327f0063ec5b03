"""
testssl.sh, which nobody here wrote, grades what the formula serves.
"""

import json

import pytest

from ..hosts.host import Host
from .nginx_host import Salt, a_site, pillar, prepare

pytestmark = pytest.mark.long

NAME = "www.example.org"
_EC = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"


def test_the_defaults_have_its_best_grade(trixie_host: Host) -> None:
    host = trixie_host
    prepare(host, "openssl", "testssl.sh", "bsdextrautils", "dnsutils")
    host.run(
        f"mkdir /opt/ca && cd /opt/ca && echo 127.0.0.1 {NAME} >> /etc/hosts"
        f" && openssl req -x509 {_EC} -subj /CN=authority -keyout ca.key -out ca.pem"
        f" && openssl req {_EC} -subj /CN={NAME} -keyout key.pem -out csr.pem"
        f" && printf 'subjectAltName=DNS:{NAME}\\nextendedKeyUsage=serverAuth' > names"
        " && openssl x509 -req -in csr.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 90"
        " -extfile names -out own.pem"
    )
    tls = {"certificate": host.read("/opt/ca/own.pem"), "key": host.read("/opt/ca/key.pem")}
    salt = Salt(host)
    try:
        salt.pillar = pillar({"mysite": a_site(NAME, tls=tls)})
        for function in ("nginx_tree.applied", "nginx_process.current"):
            done = salt.state(function)
            assert done["result"] is True, done["comment"]
    finally:
        salt.close()
    # nginx 1.26: the directive, and no warning for the older word.
    assert "http2 on;" in host.read("/etc/nginx/sites-available/mysite.conf")
    assert "[warn]" not in host.run("nginx -t 2>&1").stdout
    host.run(
        "testssl --quiet --color 0 --add-ca /opt/ca/ca.pem --ip 127.0.0.1 --jsonfile /root/grade.json"
        f" https://{NAME}/",
        timeout=560,
        check=False,
    )
    findings = json.loads(host.read("/root/grade.json"))
    (grade,) = [row["finding"] for row in findings if row["id"] == "overall_grade"]
    bad = [row for row in findings if row["severity"] in ("HIGH", "CRITICAL", "FATAL")]
    assert grade == "A+", bad
    # The test's own authority publishes neither a CRL nor an OCSP address.
    assert [row["id"] for row in bad] in ([], ["cert_revocation"])
