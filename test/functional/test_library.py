"""The library of the execution modules: a process that has read an older one reads the newer one."""

import pytest

from ..hosts.salts import program

# One process, as a minion with `multiprocessing: False` is: it calls the modules, a sync brings newer
# ones, and it loads those (what `saltutil.refresh_modules` makes a minion do).
_MINION = """
import json, pathlib, shutil, sys

import salt.config, salt.minion
from salt.exceptions import CommandExecutionError

tree = pathlib.Path("/root/tree")
shutil.copytree("/srv/formula/_modules", tree / "_modules")
opts = salt.config.minion_config(None)
opts.update(
    file_client="local",
    file_roots={"base": [str(tree)]},
    fileserver_list_cache_time=0,
    cachedir="/root/cache",
    extension_modules="/root/cache/extmods",
    id="one-process",
)
minion = salt.minion.SMinion(opts)
minion.functions["saltutil.sync_modules"]()
minion.gen_modules()
try:
    minion.functions["uwsgi_request.get"]("/nowhere")
except CommandExecutionError as error:
    print(json.dumps(str(error)))
with open(tree / "_modules/_nud_uwsgi_protocol.py", "a") as library:
    library.write("\\n\\ndef release():\\n    return 'the newer library'\\n")
with open(tree / "_modules/uwsgi_request.py", "a") as module:
    module.write("\\n\\ndef release():\\n    return uwsgi_protocol.release()\\n")
print(json.dumps(sorted(minion.functions["saltutil.sync_modules"]())))
minion.gen_modules()
print(json.dumps(minion.functions["uwsgi_request.release"]()))
print(json.dumps([name for name in minion.functions if "_nud" in name]))
"""


@pytest.mark.few(1)
@pytest.mark.parametrize("salt", ["3006", "3007", "3008"])
def test_a_process_that_has_read_an_older_library_reads_the_newer_one(host, salt):
    host.run("rm", "-rf", "/root/tree", "/root/cache")
    host.write("/root/minion.py", _MINION)
    said = host.run(program(salt, "python"), "/root/minion.py").stdout.splitlines()
    assert said == [
        '"nobody answers on /nowhere: No such file or directory"',
        '["modules._nud_uwsgi_protocol", "modules.uwsgi_request"]',
        '"the newer library"',
        "[]",
    ], said
