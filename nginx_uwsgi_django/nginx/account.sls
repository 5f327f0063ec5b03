#!yaml
include:
  - nginx_uwsgi_django.package

'nginx: worker account':
  system_account.present:
    - name: nginx
    - require:
      - system_packages: 'nginx: package'
