#!yaml
include:
  - nginx_uwsgi_django.pillar

'schedule: timer removed':
  scheduled_apply.absent:
    - name: nginx_uwsgi_django
    - require:
      - sls: nginx_uwsgi_django.pillar
