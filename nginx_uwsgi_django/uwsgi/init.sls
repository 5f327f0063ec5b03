#!yaml
# From its account to its companions: what `nginx_uwsgi_django.django` does is part of it.
include:
  - nginx_uwsgi_django.nginx.account

# Before a socket is opened, and before a unit that is taken over stops.
'sites: the directory of their sockets stays':
  socket_directory.kept:
    - name: sites
    - require:
      - site_pillar: 'nginx_uwsgi_django: the pillar is valid'

'sites: each is as the pillar says':
  django_site.current:
    - name: sites
    - require:
      - system_account: 'nginx: the account of its workers exists'
      - system_packages: 'sites: the packages that they are built with are installed'
