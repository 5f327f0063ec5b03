{%- from 'nginx_uwsgi_django/map.jinja' import present, hooked with context %}
{%- import 'nginx_uwsgi_django/hooks.jinja' as hooks %}

include:
  - nginx_uwsgi_django.uwsgi

{%- for site in present %}

'{{ site }}: current is the release that is served':
  django_release.live:
    - name: {{ site }}
    - require:
      - uwsgi_generation: '{{ site }}: uWSGI runs the desired generation'
{%- if site in hooked %}
{{- hooks.ran(site, 'after the switch', ['after_switch'],
      ['django_release', 'current is the release that is served']) }}
{%- endif %}
{%- endfor %}
