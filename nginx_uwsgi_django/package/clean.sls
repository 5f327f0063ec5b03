#!yaml
include:
  - nginx_uwsgi_django.django.clean

'nginx: the account of its workers is gone':
  system_account.absent:
    - name: nginx
    - require:
      - nginx_process: 'nginx: it runs what is on disk'

'the packages that this formula installed are gone':
  system_packages.absent:
    - name: all
    - require:
      - system_account: 'nginx: the account of its workers is gone'
      - site_certificate: 'certificates are renewed no more'
      - django_site: 'sites: all are gone'

'nginx: its package source is gone':
  deb822_source.absent:
    - name: nginx
    - require:
      - system_packages: 'the packages that this formula installed are gone'
