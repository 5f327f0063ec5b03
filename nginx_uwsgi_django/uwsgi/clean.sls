#!yaml
include:
  - nginx_uwsgi_django.nginx.clean

'sites: nothing serves any of them':
  django_site.stopped:
    - name: sites
    - everything: True
    - require:
      - nginx_process: 'nginx: it runs what is on disk'

'sites: other services have their runtime directories':
  socket_directory.absent:
    - name: sites
    - require:
      - django_site: 'sites: nothing serves any of them'
