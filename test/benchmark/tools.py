"""
Those who do the job: this formula, Salt's own states, Ansible and pyinfra, each on the host itself.
"""

import json

from test.hosts.host import Host
from test.hosts.salts import VERSIONS, program

from . import job

SALT = "3008"
ANSIBLE = "ansible-core==2.19.*"
PYINFRA = "pyinfra==3.*"

# Salt's own states, as an administrator writes them.
_STOCK = """\
{%- for site in pillar['bench'] %}
{{ site.name }}:
  user.present:
    - system: True
    - createhome: False
{%-   for path, text in site.files.items() %}
{{ path }}:
  file.managed:
    - contents: {{ text | json }}
    - makedirs: True
{%-     if path.endswith('.conf') %}
    - watch_in:
      - service: nginx
{%-     endif %}
{%-   endfor %}
/etc/nginx/sites-enabled/{{ site.name }}.conf:
  file.symlink:
    - target: /etc/nginx/sites-available/{{ site.name }}.conf
    - watch_in:
      - service: nginx
{%-   if pillar['check'] %}
{{ site.name }}, checked:
  cmd.run:
    - name: {{ pillar['check'] }}
    - cwd: /srv/{{ site.name }}
    - runas: {{ site.name }}
    - env:
      - DJANGO_SETTINGS_MODULE: app.settings
      - PYTHONPATH: /srv/{{ site.name }}
    - onchanges:
      - file: /etc/uwsgi-bench/{{ site.name }}.ini
    - require_in:
      - service: {{ site.name }}.socket
{%-   endif %}
{{ site.name }}.socket:
  service.running:
    - enable: True
    - require:
      - file: /etc/systemd/system/{{ site.name }}.socket
{{ site.name }}.service:
  service.running:
    - enable: True
    - require:
      - service: {{ site.name }}.socket
    - watch:
      - file: /etc/uwsgi-bench/{{ site.name }}.ini
      - file: /etc/systemd/system/{{ site.name }}.service
{%- endfor %}
nginx:
  service.running:
    - enable: True
    - reload: True
"""


class Tool:
    """One way to do the job. ``host`` is its own."""

    name = ""

    def __init__(self, host: Host) -> None:
        self.host = host

    def install(self) -> None:
        """Put the tool on the host."""

    def want(self, count: int, body_size: str = job.BODY_SIZES[0]) -> None:
        """Tell it what is to be."""
        raise NotImplementedError

    def command(self) -> list[str]:
        """What brings it about."""
        raise NotImplementedError

    def version(self) -> str:
        """What it is."""
        raise NotImplementedError


class Formula(Tool):
    """This formula, masterless."""

    name = "this formula"

    def want(self, count: int, body_size: str = job.BODY_SIZES[0]) -> None:
        self.host.set_pillar(job.pillar(count, body_size))

    def command(self) -> list[str]:
        return [*_salt_call(self.host), "state.apply", "nginx_uwsgi_django"]

    def version(self) -> str:
        return f"Salt {VERSIONS[SALT]}"


class Stock(Tool):
    """Salt's own states: user, file and service."""

    name = "Salt's own states"
    check = ""

    def install(self) -> None:
        self.host.write("/srv/bench/bench.sls", _STOCK)

    def want(self, count: int, body_size: str = job.BODY_SIZES[0]) -> None:
        self.host.set_pillar({"bench": _wanted(count, body_size), "check": self.check})

    def command(self) -> list[str]:
        return [*_salt_call(self.host), "--file-root=/srv/bench", "state.apply", "bench"]

    def version(self) -> str:
        return f"Salt {VERSIONS[SALT]}"


class CheckingStock(Stock):
    """Salt's own states that ask each project whether it is sound, as this formula does."""

    name = "Salt's own states, and the checks"
    check = f"{job.VENV}/bin/python -m django check"


class Ansible(Tool):
    """Ansible with a local connection."""

    name = "Ansible"

    def install(self) -> None:
        self.host.run("python3", "-m", "venv", "/opt/ansible")
        self.host.run("/opt/ansible/bin/pip", "-q", "install", ANSIBLE, timeout=600)
        self.host.write("/root/bench.yml", _ANSIBLE)

    def want(self, count: int, body_size: str = job.BODY_SIZES[0]) -> None:
        wanted = _wanted(count, body_size)
        files = [
            {"path": path, "text": text} for site in wanted for path, text in site["files"].items()
        ]
        self.host.write("/root/bench.json", json.dumps({"bench": wanted, "files": files}))

    def command(self) -> list[str]:
        return ["/opt/ansible/bin/ansible-playbook", "/root/bench.yml"]

    def version(self) -> str:
        return _first_line(self.host, "/opt/ansible/bin/ansible", "--version")


_ANSIBLE = """\
- hosts: localhost
  connection: local
  gather_facts: false
  vars_files: [/root/bench.json]
  handlers:
    - name: reload nginx
      systemd: {name: nginx, state: reloaded}
  tasks:
    - user: {name: "{{ item.name }}", system: true, create_home: false}
      loop: "{{ bench }}"
      loop_control: {label: "{{ item.name }}"}
    - file: {path: /etc/uwsgi-bench, state: directory}
    - copy: {dest: "{{ item.path }}", content: "{{ item.text }}"}
      loop: "{{ files }}"
      loop_control: {label: "{{ item.path }}"}
      register: copied
      notify: reload nginx
    - file:
        src: /etc/nginx/sites-available/{{ item.name }}.conf
        path: /etc/nginx/sites-enabled/{{ item.name }}.conf
        state: link
      loop: "{{ bench }}"
      loop_control: {label: "{{ item.name }}"}
      notify: reload nginx
    - systemd: {daemon_reload: true}
      when: copied.changed
    - systemd: {name: "{{ item.0.name }}.{{ item.1 }}", enabled: true, state: started}
      loop: "{{ bench | product(['socket', 'service']) | list }}"
      loop_control: {label: "{{ item.0.name }}.{{ item.1 }}"}
"""


class Pyinfra(Tool):
    """pyinfra on the host itself."""

    name = "pyinfra"

    def install(self) -> None:
        self.host.run("python3", "-m", "venv", "/opt/pyinfra")
        self.host.run("/opt/pyinfra/bin/pip", "-q", "install", PYINFRA, timeout=600)
        self.host.write("/root/deploy.py", _PYINFRA)

    def want(self, count: int, body_size: str = job.BODY_SIZES[0]) -> None:
        self.host.write("/root/bench.json", json.dumps(_wanted(count, body_size)))

    def command(self) -> list[str]:
        return ["/opt/pyinfra/bin/pyinfra", "-y", "@local", "/root/deploy.py"]

    def version(self) -> str:
        return _first_line(self.host, "/opt/pyinfra/bin/pyinfra", "--version")


_PYINFRA = """\
import io
import json

from pyinfra.operations import files, server, systemd

changed, units = [], []
wanted = json.load(open("/root/bench.json"))
for site in wanted:
    server.user(user=site["name"], system=True, create_home=False, ensure_home=False)
    for path, text in site["files"].items():
        put = files.put(src=io.StringIO(text), dest=path, mode="644")
        (changed if path.endswith(".conf") else units).append(put)
    changed.append(files.link(
        path=f"/etc/nginx/sites-enabled/{site['name']}.conf",
        target=f"/etc/nginx/sites-available/{site['name']}.conf",
    ))
systemd.daemon_reload(_if=lambda: any(one.did_change() for one in units))
for site in wanted:
    for kind in ("socket", "service"):
        systemd.service(service=f"{site['name']}.{kind}", running=True, enabled=True)
systemd.service(
    service="nginx", running=True, reloaded=True,
    _if=lambda: any(one.did_change() for one in changed),
)
"""

TOOLS: tuple[type[Tool], ...] = (Formula, Stock, CheckingStock, Pyinfra, Ansible)


def floor(host: Host) -> list[str]:
    """What every run of Salt takes at least."""
    return [*_salt_call(host), "test.ping"]


def _salt_call(host: Host) -> list[str]:
    folder = host.salt_config(SALT)
    return [
        program(SALT, "salt-call"),
        "--local",
        f"--config-dir={folder}",
        "--log-level=error",
        "--retcode-passthrough",
    ]


def _wanted(count: int, body_size: str) -> list[dict[str, object]]:
    found = []
    for number, name in enumerate(job.names(count)):
        size = body_size if number == 0 else job.BODY_SIZES[0]
        found.append({"name": name, "files": job.files(name, size)})
    return found


def _first_line(host: Host, *command: str) -> str:
    return host.run(*command).stdout.splitlines()[0]
