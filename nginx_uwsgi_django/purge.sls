#!yaml
include:
  - nginx_uwsgi_django.nginx
  - nginx_uwsgi_django.absent

# Reported; removed only where the pillar says `purge: true`.
'sites: orphans reported or purged':
  site_leftovers.handled:
    - name: nginx_uwsgi_django
    - require:
      - nginx_process: 'nginx: reloaded or upgraded if needed'
