#!yaml
# Of the pillar alone: a host on which another state fails is the one that has to run again.
include:
  - nginx_uwsgi_django.pillar

'the formula is applied by a timer where the pillar says so, and else by none':
  scheduled_apply.current:
    - name: nginx_uwsgi_django
    - require:
      - sls: nginx_uwsgi_django.pillar
