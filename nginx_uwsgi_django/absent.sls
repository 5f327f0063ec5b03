#!yaml
include:
  - nginx_uwsgi_django.nginx

# Once nginx has let go of them.
'sites: those that the pillar calls absent are gone':
  django_site.absent:
    - name: sites
    - require:
      - nginx_process: 'nginx: it runs what is on disk'

'takeover: nothing is kept of what the absent sites had replaced':
  takeover.forgotten:
    - name: sites
    - require:
      - nginx_process: 'nginx: it runs what is on disk'

# With the last site. One that cannot go yet is told of by the state above.
'sites: no directory is kept without a socket in it':
  socket_directory.kept:
    - name: sites
    - require:
      - nginx_process: 'nginx: it runs what is on disk'
