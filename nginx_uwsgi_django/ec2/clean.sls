#!yaml
include:
  - nginx_uwsgi_django.pillar

'ec2: the security group lets in nothing of ours':
  ec2_ingress.absent:
    - name: nginx_uwsgi_django
    - require:
      - sls: nginx_uwsgi_django.pillar
