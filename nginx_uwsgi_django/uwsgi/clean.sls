#!yaml
include:
  - nginx_uwsgi_django.nginx.clean

'sites: stopped':
  django_site.stopped:
    - name: sites
    - everything: True
    - require:
      - nginx_process: 'nginx: reloaded or upgraded if needed'

'sites: runtime directories of other services':
  socket_directory.absent:
    - name: sites
    - require:
      - django_site: 'sites: stopped'
