"""
Throwaway Debian hosts with a real systemd, for the tests and for a look at the formula.

Only the standard library and Debian's own tools: ``bin/apply`` uses this too, with the system's
Python.
"""
