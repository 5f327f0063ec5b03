#!yaml
include:
  - nginx_uwsgi_django.nginx.account

'nginx: its tree is the one of the pillar':
  nginx_tree.applied:
    - name: nginx
    - require:
      - system_account: 'nginx: the account of its workers exists'

'nginx: it runs what is on disk':
  nginx_process.current:
    - name: nginx
    - require:
      - nginx_tree: 'nginx: its tree is the one of the pillar'

'nginx: who holds its listening sockets':
  nginx_socket.held:
    - name: nginx
    - require:
      - nginx_process: 'nginx: it runs what is on disk'

'nginx: a shutdown drains the host first, where the pillar says so':
  host_drain.at_shutdown:
    - name: nginx
    - require:
      - nginx_process: 'nginx: it runs what is on disk'
