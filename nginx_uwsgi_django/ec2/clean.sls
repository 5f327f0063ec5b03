#!yaml
include:
  - nginx_uwsgi_django.pillar

'ec2: security group rules removed':
  ec2_ingress.absent:
    - name: nginx_uwsgi_django
    - require:
      - sls: nginx_uwsgi_django.pillar
