{%- from 'nginx_uwsgi_django/map.jinja' import present, hooked with context %}
{%- import 'nginx_uwsgi_django/hooks.jinja' as hooks %}

include:
  - nginx_uwsgi_django.nginx.account
  - nginx_uwsgi_django.django

{%- for site in present %}

'{{ site }}: systemd holds the socket':
  uwsgi_socket.listening:
    - name: {{ site }}
    - require:
      - system_account: 'nginx: the account of its workers exists'
      - system_account: '{{ site }}: its user and group exist'
{%- if site in hooked %}
{{- hooks.ran(site, 'before the switch', ['before_switch'],
      ['release_hook', 'the hooks after migrate have run'],
      ['uwsgi_generation', 'uWSGI runs the desired generation']) }}
{%- endif %}

'{{ site }}: what uWSGI writes is kept':
  uwsgi_log.kept:
    - name: {{ site }}
    - require:
      - system_account: '{{ site }}: its user and group exist'

'{{ site }}: uWSGI runs the desired generation':
  uwsgi_generation.running:
    - name: {{ site }}
    - require:
      - uwsgi_socket: '{{ site }}: systemd holds the socket'
      - uwsgi_log: '{{ site }}: what uWSGI writes is kept'
      - django_release: '{{ site }}: the release is checked and its database and static files are prepared'
{%- endfor %}
