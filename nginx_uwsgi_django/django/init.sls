#!yaml
# As far as it goes without a visitor noticing: fetched, built, checked, migrated, collected.
include:
  - nginx_uwsgi_django.package

'sites: releases prepared':
  django_site.prepared:
    - name: sites
    - require:
      - system_packages: 'sites: system packages'
