{%- from 'nginx_uwsgi_django/map.jinja' import present, absent with context %}

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
{%- for site in present + absent %}
      - system_account: '{{ site }}: its user and group are gone'
{%- endfor %}

'nginx: its package source is gone':
  deb822_source.absent:
    - name: nginx
    - require:
      - system_packages: 'the packages that this formula installed are gone'
