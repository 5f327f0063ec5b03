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

'nginx: its tree is the distribution''s again':
  nginx_tree.removed:
    - name: nginx
    - require:
      - nginx_socket: 'nginx: its listening sockets are its own'

'nginx: it runs what is on disk':
  nginx_process.let_go:
    - name: nginx
    - require:
      - nginx_tree: 'nginx: its tree is the distribution''s again'

'certificates are renewed no more':
  site_certificate.retired:
    - name: nginx_uwsgi_django
    - everything: True
    - require:
      - nginx_process: 'nginx: it runs what is on disk'
