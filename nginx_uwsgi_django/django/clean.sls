#!yaml
# What `nginx_uwsgi_django.uwsgi.clean` does is part of it.
include:
  - nginx_uwsgi_django.nginx.clean

'sites: removed':
  django_site.absent:
    - name: sites
    - everything: True
    - require:
      - nginx_process: 'nginx: reloaded or upgraded if needed'

'sites: runtime directories of other services':
  socket_directory.absent:
    - name: sites
    - require:
      - django_site: 'sites: removed'
