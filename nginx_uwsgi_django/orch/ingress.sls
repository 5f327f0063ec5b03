#!py
"""
The rules of a security group, kept by the master: `ec2:ingress` as an orchestration; docs/ec2.md.

Written in Python so that no value of the pillar ever becomes text of an SLS.
"""


def run():
    """Two states on the master, with what the pillar's `ingress` says; `clean` removes instead."""
    ingress = dict(__pillar__.get("ingress") or {})
    argument = [{"name": "nginx_uwsgi_django"}, {"ingress": ingress}]
    function = "ec2_ingress.absent" if __pillar__.get("clean") is True else "ec2_ingress.current"
    first = "ec2: what asks AWS is installed on the master"
    return {
        first: {"ec2_ingress.sdk": argument},
        "ec2: the security group is kept by the master": {
            function: [*argument, {"require": [{"ec2_ingress": first}]}]
        },
    }
