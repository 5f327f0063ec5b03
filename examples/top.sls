# The same file serves as the top file of states and, beside a pillar file of that name, of pillars.
base:
  'web*':
    - nginx_uwsgi_django
