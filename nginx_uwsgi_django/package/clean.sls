#!yaml
include:
  - nginx_uwsgi_django.django.clean

'nginx: worker account removed':
  system_account.absent:
    - name: nginx
    - require:
      - nginx_process: 'nginx: reloaded or upgraded if needed'

'packages: removed':
  system_packages.absent:
    - name: all
    - require:
      - system_account: 'nginx: worker account removed'
      - site_certificate: 'acme: renewal removed'
      - django_site: 'sites: removed'

'nginx: package source removed':
  deb822_source.absent:
    - name: nginx
    - require:
      - system_packages: 'packages: removed'
