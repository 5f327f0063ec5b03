"""
What all tests share.
"""

from .hosts.fixtures import host, trixie_host

__all__ = ["host", "trixie_host"]
