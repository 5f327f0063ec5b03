{%- from 'nginx_uwsgi_django/map.jinja' import absent with context %}

{#- The sites that the pillar calls absent go once nginx has let go of them. #}
include:
  - nginx_uwsgi_django.nginx

{%- if absent %}
{%-   import 'nginx_uwsgi_django/gone.jinja' as gone %}
{{- gone.uwsgi(absent) }}
{{- gone.django(absent) }}
{%- endif %}
