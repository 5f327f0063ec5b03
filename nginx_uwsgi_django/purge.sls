#!yaml
include:
  - nginx_uwsgi_django.nginx
  - nginx_uwsgi_django.absent

# Reported; removed only where the pillar says `purge: true`.
'sites that the pillar has lost are reported, or gone':
  site_leftovers.handled:
    - name: nginx_uwsgi_django
    - require:
      - nginx_process: 'nginx: it runs what is on disk'
