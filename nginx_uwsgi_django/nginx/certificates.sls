{%- from 'nginx_uwsgi_django/map.jinja' import encrypted with context %}

{#- After nginx: the ACME authority asks for its challenges there, by plain HTTP. #}
include:
  - nginx_uwsgi_django.nginx

{%- for site in encrypted %}

'{{ site }}: its certificate is the one that it asks for':
  site_certificate.issued:
    - name: {{ site }}
    - require:
      - nginx_process: 'nginx: it runs what is on disk'
{%- endfor %}

'certificates that no site asks for are renewed no more':
  site_certificate.retired:
    - name: nginx_uwsgi_django
    - require:
      - nginx_process: 'nginx: it runs what is on disk'
