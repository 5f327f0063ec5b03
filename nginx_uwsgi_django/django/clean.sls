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

'sites: other services have their runtime directories':
  socket_directory.absent:
    - name: sites
    - require:
      - django_site: 'sites: all are gone'
