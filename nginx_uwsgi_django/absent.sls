#!yaml
include:
  - nginx_uwsgi_django.nginx

# Once nginx has let go of them.
'sites: absent sites removed':
  django_site.absent:
    - name: sites
    - require:
      - nginx_process: 'nginx: reloaded or upgraded if needed'

'takeover: files kept for absent sites removed':
  takeover.forgotten:
    - name: sites
    - require:
      - nginx_process: 'nginx: reloaded or upgraded if needed'

# With the last site. One that cannot go yet is told of by the state above.
'sites: socket directory released':
  socket_directory.kept:
    - name: sites
    - require:
      - nginx_process: 'nginx: reloaded or upgraded if needed'
