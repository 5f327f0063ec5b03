#!yaml
include:
  - nginx_uwsgi_django.pillar

'nginx: package source':
  deb822_source.present:
    - name: nginx
    - require:
      - sls: nginx_uwsgi_django.pillar

'nginx: package':
  system_packages.installed:
    - name: nginx
    - require:
      - deb822_source: 'nginx: package source'

'sites: system packages':
  system_packages.installed:
    - name: sites
    - require:
      - sls: nginx_uwsgi_django.pillar
