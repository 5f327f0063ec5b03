#!yaml
# After nginx: the ACME authority asks for its challenges there, by plain HTTP.
include:
  - nginx_uwsgi_django.nginx

'sites: each has the certificate that it asks an authority for':
  django_site.certified:
    - name: sites
    - require:
      - nginx_process: 'nginx: it runs what is on disk'

'certificates that no site asks for are renewed no more':
  site_certificate.retired:
    - name: nginx_uwsgi_django
    - require:
      - nginx_process: 'nginx: it runs what is on disk'
