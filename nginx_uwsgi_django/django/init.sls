{%- from 'nginx_uwsgi_django/map.jinja' import present with context %}

include:
  - nginx_uwsgi_django.package

{%- for site in present %}

'{{ site }}: its user and group exist':
  system_account.present:
    - name: {{ site }}
    - require:
      - system_packages: 'sites: the packages that they are built with are installed'

'{{ site }}: the release is complete on this host':
  django_release.present:
    - name: {{ site }}
    - require:
      - system_account: '{{ site }}: its user and group exist'

'{{ site }}: the virtual environment is built':
  python_venv.built:
    - name: {{ site }}
    - require:
      - django_release: '{{ site }}: the release is complete on this host'

'{{ site }}: the release is checked and its database and static files are prepared':
  django_release.prepared:
    - name: {{ site }}
    - require:
      - python_venv: '{{ site }}: the virtual environment is built'
{%- endfor %}
