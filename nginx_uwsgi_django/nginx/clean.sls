#!yaml
include:
  - nginx_uwsgi_django.pillar

'nginx: drain before shutdown removed':
  host_drain.absent:
    - name: nginx
    - require:
      - sls: nginx_uwsgi_django.pillar

'nginx: listening sockets given back':
  nginx_socket.absent:
    - name: nginx
    - require:
      - sls: nginx_uwsgi_django.pillar

# Before nginx goes back to it.
'takeover: former services running':
  takeover.returned:
    - name: sites
    - everything: True
    - require:
      - sls: nginx_uwsgi_django.pillar

'nginx: socket access for the packaged user':
  nginx_user.returning:
    - name: nginx
    - require:
      - sls: nginx_uwsgi_django.pillar

'nginx: packaged configuration restored':
  nginx_tree.removed:
    - name: nginx
    - require:
      - nginx_socket: 'nginx: listening sockets given back'
      - takeover: 'takeover: former services running'
      - nginx_user: 'nginx: socket access for the packaged user'

'nginx: reloaded or upgraded if needed':
  nginx_process.let_go:
    - name: nginx
    - require:
      - nginx_tree: 'nginx: packaged configuration restored'

'nginx: socket access for the packaged user only':
  nginx_user.returned:
    - name: nginx
    - require:
      - nginx_process: 'nginx: reloaded or upgraded if needed'

'takeover: kept files removed':
  takeover.forgotten:
    - name: sites
    - everything: True
    - require:
      - nginx_process: 'nginx: reloaded or upgraded if needed'

'acme: renewal removed':
  site_certificate.retired:
    - name: nginx_uwsgi_django
    - everything: True
    - require:
      - nginx_process: 'nginx: reloaded or upgraded if needed'
