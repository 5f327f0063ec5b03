#!yaml
# Of the pillar alone: a host on which another state fails is the one that has to run again.
include:
  - nginx_uwsgi_django.pillar

'schedule: timer':
  scheduled_apply.current:
    - name: nginx_uwsgi_django
    - require:
      - sls: nginx_uwsgi_django.pillar
