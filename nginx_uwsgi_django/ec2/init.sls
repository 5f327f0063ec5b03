#!yaml
# Nothing to do on any minion but the one that the pillar's `ec2:ingress:minion` names.
include:
  - nginx_uwsgi_django.pillar

'ec2: boto3 on the managing minion':
  ec2_ingress.sdk:
    - name: nginx_uwsgi_django
    - require:
      - sls: nginx_uwsgi_django.pillar

'ec2: security group rules':
  ec2_ingress.current:
    - name: nginx_uwsgi_django
    - require:
      - ec2_ingress: 'ec2: boto3 on the managing minion'
