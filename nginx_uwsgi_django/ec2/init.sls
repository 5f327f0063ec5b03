#!yaml
# Nothing to do on any minion but the one that the pillar's `ec2:ingress:minion` names.
include:
  - nginx_uwsgi_django.pillar

'ec2: what asks AWS is installed where the pillar has a security group kept':
  ec2_ingress.sdk:
    - name: nginx_uwsgi_django
    - require:
      - sls: nginx_uwsgi_django.pillar

'ec2: the security group lets in what the pillar says':
  ec2_ingress.current:
    - name: nginx_uwsgi_django
    - require:
      - ec2_ingress: 'ec2: what asks AWS is installed where the pillar has a security group kept'
