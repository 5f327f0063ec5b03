#!yaml
include:
  - nginx_uwsgi_django.package

'nginx: the account of its workers exists':
  system_account.present:
    - name: nginx
    - require:
      - system_packages: 'nginx: its package is installed'
