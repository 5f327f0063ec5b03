{%- from 'nginx_uwsgi_django/map.jinja' import absent with context %}
{%- import 'nginx_uwsgi_django/gone.jinja' as gone %}

{#- The sites that the pillar calls absent go once nginx has let go of them. #}
include:
  - nginx_uwsgi_django.nginx

{{- gone.uwsgi(absent) }}
{{- gone.django(absent) }}
