#!yaml
include:
  - nginx_uwsgi_django.pillar

'the formula is applied by no timer':
  scheduled_apply.absent:
    - name: nginx_uwsgi_django
    - require:
      - sls: nginx_uwsgi_django.pillar
