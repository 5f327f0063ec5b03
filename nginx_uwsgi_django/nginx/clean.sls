#!yaml
include:
  - nginx_uwsgi_django.pillar

'nginx: a shutdown drains nothing':
  host_drain.absent:
    - name: nginx
    - require:
      - sls: nginx_uwsgi_django.pillar

'nginx: its listening sockets are its own':
  nginx_socket.absent:
    - name: nginx
    - require:
      - sls: nginx_uwsgi_django.pillar

# Before nginx goes back to it.
'takeover: what the sites had replaced runs again':
  takeover.returned:
    - name: sites
    - everything: True
    - require:
      - sls: nginx_uwsgi_django.pillar

'nginx: the user that it had before has access':
  nginx_user.returning:
    - name: nginx
    - require:
      - sls: nginx_uwsgi_django.pillar

'nginx: its tree is the distribution''s again':
  nginx_tree.removed:
    - name: nginx
    - require:
      - nginx_socket: 'nginx: its listening sockets are its own'
      - takeover: 'takeover: what the sites had replaced runs again'
      - nginx_user: 'nginx: the user that it had before has access'

'nginx: it runs what is on disk':
  nginx_process.let_go:
    - name: nginx
    - require:
      - nginx_tree: 'nginx: its tree is the distribution''s again'

'nginx: only the user that it had before has access':
  nginx_user.returned:
    - name: nginx
    - require:
      - nginx_process: 'nginx: it runs what is on disk'

'takeover: nothing is kept of what the sites had replaced':
  takeover.forgotten:
    - name: sites
    - everything: True
    - require:
      - nginx_process: 'nginx: it runs what is on disk'

'certificates are renewed no more':
  site_certificate.retired:
    - name: nginx_uwsgi_django
    - everything: True
    - require:
      - nginx_process: 'nginx: it runs what is on disk'
