#!yaml
# After nginx: the ACME authority asks for its challenges there, by plain HTTP.
include:
  - nginx_uwsgi_django.nginx

'acme: certificates':
  django_site.certified:
    - name: sites
    - require:
      - nginx_process: 'nginx: reloaded or upgraded if needed'

'acme: unused certificates no longer renewed':
  site_certificate.retired:
    - name: nginx_uwsgi_django
    - require:
      - nginx_process: 'nginx: reloaded or upgraded if needed'
