{%- from 'nginx_uwsgi_django/map.jinja' import present, hooked with context %}
{%- import 'nginx_uwsgi_django/hooks.jinja' as hooks %}

include:
  - nginx_uwsgi_django.package

{%- for site in present %}

'{{ site }}: its user and group exist':
  system_account.present:
    - name: {{ site }}
    - require:
      - system_packages: 'sites: the packages that they are built with are installed'
{%- if site in hooked %}
{{- hooks.ran(site, 'before the fetch', ['before_fetch'],
      ['system_account', 'its user and group exist'],
      ['django_release', 'the release is complete on this host']) }}
{%- endif %}

'{{ site }}: the release is complete on this host':
  django_release.present:
    - name: {{ site }}
    - require:
      - system_account: '{{ site }}: its user and group exist'
{%- if site in hooked %}
{{- hooks.ran(site, 'between fetch and build', ['after_fetch', 'before_build'],
      ['django_release', 'the release is complete on this host'],
      ['python_venv', 'the virtual environment is built']) }}
{%- endif %}

'{{ site }}: the virtual environment is built':
  python_venv.built:
    - name: {{ site }}
    - require:
      - django_release: '{{ site }}: the release is complete on this host'
{%- if site in hooked %}
{{- hooks.ran(site, 'between build and migrate', ['after_build', 'before_migrate'],
      ['python_venv', 'the virtual environment is built'],
      ['django_release', 'the release is checked and its database and static files are prepared']) }}
{%- endif %}

'{{ site }}: the release is checked and its database and static files are prepared':
  django_release.prepared:
    - name: {{ site }}
    - require:
      - python_venv: '{{ site }}: the virtual environment is built'
{%- if site in hooked %}
{{- hooks.ran(site, 'after migrate', ['after_migrate'],
      ['django_release', 'the release is checked and its database and static files are prepared']) }}
{%- endif %}
{%- endfor %}
