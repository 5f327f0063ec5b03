#!yaml
include:
  - nginx_uwsgi_django.pillar

'nginx: its package source is the one of the pillar':
  deb822_source.present:
    - name: nginx
    - require:
      - sls: nginx_uwsgi_django.pillar

'nginx: its package is installed':
  system_packages.installed:
    - name: nginx
    - require:
      - deb822_source: 'nginx: its package source is the one of the pillar'

'sites: the packages that they are built with are installed':
  system_packages.installed:
    - name: sites
    - require:
      - sls: nginx_uwsgi_django.pillar
