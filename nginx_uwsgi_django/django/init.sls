#!yaml
# As far as it goes without a visitor noticing: fetched, built, checked, migrated, collected.
include:
  - nginx_uwsgi_django.package

'sites: each has its release prepared':
  django_site.prepared:
    - name: sites
    - require:
      - system_packages: 'sites: the packages that they are built with are installed'
