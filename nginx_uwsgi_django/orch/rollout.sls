#!py
"""
The same as `salt-run rollout.apply`, for those who orchestrate; see docs/fleet.md.

Written in Python so that no value of the pillar ever becomes text of an SLS.
"""


def run():
    """One state: the runner, with what the pillar's `rollout` says as its arguments."""
    arguments = dict(__pillar__.get("rollout") or {})
    return {
        "fleet: the rollout ends well or is put back": {
            "salt.runner": [{"name": "rollout.apply"}, *({key: arguments[key]} for key in arguments)]
        }
    }
