{%- from 'nginx_uwsgi_django/map.jinja' import present with context %}

include:
  - nginx_uwsgi_django.uwsgi

{%- for site in present %}

'{{ site }}: current is the release that is served':
  django_release.live:
    - name: {{ site }}
    - require:
      - uwsgi_generation: '{{ site }}: uWSGI runs the desired generation'
{%- endfor %}
