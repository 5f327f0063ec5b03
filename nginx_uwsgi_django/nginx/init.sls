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

# After what this run brings is served: the packages' tree is then what both nginx are asked about.
'nginx: its package is from the source of the pillar':
  nginx_package.current:
    - name: nginx
    - require:
      - nginx_process: 'nginx: it runs what is on disk'

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
