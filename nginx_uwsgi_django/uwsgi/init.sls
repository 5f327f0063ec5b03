#!yaml
# From its account to its companions: what `nginx_uwsgi_django.django` does is part of it.
include:
  - nginx_uwsgi_django.nginx.account

# Before a socket is opened, and before a unit that is taken over stops.
'sites: socket directory':
  socket_directory.kept:
    - name: sites
    - require:
      - site_pillar: 'nginx_uwsgi_django: pillar validated'

'sites: deployed and running':
  django_site.current:
    - name: sites
    - require:
      - system_account: 'nginx: worker account'
      - system_packages: 'sites: system packages'
