"""
The way to the library of the formula: ``from _nud import durable_file``.

The library is the files ``_nud_NAME.py`` beside this one: plain Python, without anything of Salt's
loader, which passes over names that begin with an underscore. Flat files, because packages in
``_modules`` do not reach a host by salt-ssh and cannot be imported relatively on Salt 3007 and 3008.

Salt's loader imports a public module again after a sync. What that module imports by its name stays
in ``sys.modules`` as long as the process lives, which for a minion with ``multiprocessing: False`` is
until it is restarted: new modules would call an old library. So every import comes through here, and
the whole library is read again when one of its files has changed.
"""

import importlib
import os
import sys
import threading
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import _nud_accounts as accounts  # noqa: F401
    import _nud_apt as apt  # noqa: F401
    import _nud_backends as backends  # noqa: F401
    import _nud_cache as cache  # noqa: F401
    import _nud_certbot as certbot  # noqa: F401
    import _nud_contract as contract  # noqa: F401
    import _nud_contract_checks as contract_checks  # noqa: F401
    import _nud_contract_host as contract_host  # noqa: F401
    import _nud_contract_patterns as contract_patterns  # noqa: F401
    import _nud_contract_project as contract_project  # noqa: F401
    import _nud_contract_resolve as contract_resolve  # noqa: F401
    import _nud_contract_schema as contract_schema  # noqa: F401
    import _nud_contract_serving as contract_serving  # noqa: F401
    import _nud_contract_takeover as contract_takeover  # noqa: F401
    import _nud_contract_tls as contract_tls  # noqa: F401
    import _nud_contract_uwsgi as contract_uwsgi  # noqa: F401
    import _nud_django_question as django_question  # noqa: F401
    import _nud_durable_file as durable_file  # noqa: F401
    import _nud_executables as executables  # noqa: F401
    import _nud_lock_files as lock_files  # noqa: F401
    import _nud_nginx_archive as nginx_archive  # noqa: F401
    import _nud_nginx_drift as nginx_drift  # noqa: F401
    import _nud_nginx_files as nginx_files  # noqa: F401
    import _nud_nginx_inputs as nginx_inputs  # noqa: F401
    import _nud_nginx_judge as nginx_judge  # noqa: F401
    import _nud_nginx_kept as nginx_kept  # noqa: F401
    import _nud_nginx_language as nginx_language  # noqa: F401
    import _nud_nginx_log as nginx_log  # noqa: F401
    import _nud_nginx_origin as nginx_origin  # noqa: F401
    import _nud_nginx_plan as nginx_plan  # noqa: F401
    import _nud_nginx_ports as nginx_ports  # noqa: F401
    import _nud_nginx_program as nginx_program  # noqa: F401
    import _nud_nginx_servers as nginx_servers  # noqa: F401
    import _nud_nginx_swap as nginx_swap  # noqa: F401
    import _nud_nginx_user as nginx_user  # noqa: F401
    import _nud_nginx_workers as nginx_workers  # noqa: F401
    import _nud_openpgp as openpgp  # noqa: F401
    import _nud_pem_text as pem_text  # noqa: F401
    import _nud_proc as proc  # noqa: F401
    import _nud_process_facts as process_facts  # noqa: F401
    import _nud_process_pool as process_pool  # noqa: F401
    import _nud_program as program  # noqa: F401
    import _nud_redaction as redaction  # noqa: F401
    import _nud_release_files as release_files  # noqa: F401
    import _nud_site_plan as site_plan  # noqa: F401
    import _nud_survey as survey  # noqa: F401
    import _nud_systemd as systemd  # noqa: F401
    import _nud_systemd_units as systemd_units  # noqa: F401
    import _nud_takeover_record as takeover_record  # noqa: F401
    import _nud_unix_socket as unix_socket  # noqa: F401
    import _nud_uwsgi_files as uwsgi_files  # noqa: F401
    import _nud_uwsgi_ini as uwsgi_ini  # noqa: F401
    import _nud_uwsgi_preflight as uwsgi_preflight  # noqa: F401
    import _nud_uwsgi_protocol as uwsgi_protocol  # noqa: F401
    import _nud_uwsgi_refusal as uwsgi_refusal  # noqa: F401
    import _nud_uwsgi_status as uwsgi_status  # noqa: F401
    import _nud_uwsgi_switch as uwsgi_switch  # noqa: F401
    import _nud_uwsgi_unit as uwsgi_unit  # noqa: F401
    import _nud_uwsgi_workers as uwsgi_workers  # noqa: F401

_HERE = os.path.dirname(os.path.abspath(__file__))
_PREFIX = "_nud_"

# A minion with `multiprocessing: False` runs its jobs in threads.
_LOCK = threading.RLock()
_stamps: dict[str, tuple[int, int, int]] = {}


def _stamp(name: str) -> tuple[int, int, int] | None:
    """What changes when a file of the library is written; None when the file is gone."""
    try:
        seen = os.stat(os.path.join(_HERE, f"{name}.py"))
    except FileNotFoundError:
        return None
    return seen.st_ino, seen.st_size, seen.st_mtime_ns


def _loaded() -> list[str]:
    return [name for name in sys.modules if name.startswith(_PREFIX)]


#: This file, as it was when it was read.
_OWN = _stamp("_nud")


def _drop_stale() -> None:
    """Forget the library when one of its files is not the one that was read."""
    if _stamp("_nud") != _OWN:
        sys.modules.pop("_nud", None)
    if any(_stamp(name) != stamp for name, stamp in _stamps.items()):
        for name in _loaded():
            del sys.modules[name]
        _stamps.clear()
        importlib.invalidate_caches()


def __getattr__(name: str) -> ModuleType:
    if name.startswith("_"):
        raise AttributeError(name)
    with _LOCK:
        _drop_stale()
        # Salt's loader has this directory on the path while it imports a module, others do not.
        sys.path.insert(0, _HERE)
        try:
            module = importlib.import_module(_PREFIX + name)
        finally:
            sys.path.remove(_HERE)
        for each in _loaded():
            if each not in _stamps and (stamp := _stamp(each)) is not None:
                _stamps[each] = stamp
    return module
