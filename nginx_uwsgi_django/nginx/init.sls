#!yaml
include:
  - nginx_uwsgi_django.nginx.account

# Before the tree gives nginx another user: the old workers have requests to finish.
'nginx: its old and its new user have access':
  nginx_user.admitted:
    - name: nginx
    - require:
      - system_account: 'nginx: the account of its workers exists'

# Before nginx goes back to it. Not required: nginx is there for other sites, too.
'takeover: what an absent site had replaced runs again':
  takeover.returned:
    - name: sites
    - require:
      - system_account: 'nginx: the account of its workers exists'

'nginx: its tree is the one of the pillar':
  nginx_tree.applied:
    - name: nginx
    - require:
      - system_account: 'nginx: the account of its workers exists'
      - nginx_user: 'nginx: its old and its new user have access'

'nginx: it runs what is on disk':
  nginx_process.current:
    - name: nginx
    - require:
      - nginx_tree: 'nginx: its tree is the one of the pillar'

'nginx: only its user has access':
  nginx_user.narrowed:
    - name: nginx
    - require:
      - nginx_process: 'nginx: it runs what is on disk'

'sites: visitors reach each':
  nginx_tree.reached:
    - name: sites
    - require:
      - nginx_process: 'nginx: it runs what is on disk'

'takeover: what served the sites before is stopped':
  takeover.settled:
    - name: sites
    - require:
      - nginx_process: 'nginx: it runs what is on disk'

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
