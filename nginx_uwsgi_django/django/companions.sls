{%- from 'nginx_uwsgi_django/map.jinja' import present with context %}

include:
  - nginx_uwsgi_django.django.live

{#- After the switch: whatever becomes of them, the new release is served. #}
{%- for site in present %}

'{{ site }}: its companions run':
  site_companion.running:
    - name: {{ site }}
    - require:
      - django_release: '{{ site }}: current is the release that is served'
{%- endfor %}
