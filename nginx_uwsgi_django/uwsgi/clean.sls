{%- from 'nginx_uwsgi_django/map.jinja' import present, absent with context %}
{%- import 'nginx_uwsgi_django/gone.jinja' as gone %}

include:
  - nginx_uwsgi_django.nginx.clean

{{- gone.uwsgi(present + absent) }}
