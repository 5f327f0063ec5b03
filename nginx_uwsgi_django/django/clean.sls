#!yaml
# What `nginx_uwsgi_django.uwsgi.clean` does is part of it.
include:
  - nginx_uwsgi_django.nginx.clean

'sites: all are gone':
  django_site.absent:
    - name: sites
    - everything: True
    - require:
      - nginx_process: 'nginx: it runs what is on disk'
