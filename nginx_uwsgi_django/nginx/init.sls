#!yaml
include:
  - nginx_uwsgi_django.nginx.account

# Before the tree gives nginx another user: the old workers have requests to finish.
'nginx: socket access for the old and the new user':
  nginx_user.admitted:
    - name: nginx
    - require:
      - system_account: 'nginx: worker account'

# Before nginx goes back to it. Not required: nginx is there for other sites, too.
'takeover: former services of absent sites running':
  takeover.returned:
    - name: sites
    - require:
      - system_account: 'nginx: worker account'

'nginx: configuration tree':
  nginx_tree.applied:
    - name: nginx
    - require:
      - system_account: 'nginx: worker account'
      - nginx_user: 'nginx: socket access for the old and the new user'

'nginx: reloaded or upgraded if needed':
  nginx_process.current:
    - name: nginx
    - require:
      - nginx_tree: 'nginx: configuration tree'

'nginx: socket access for its user only':
  nginx_user.narrowed:
    - name: nginx
    - require:
      - nginx_process: 'nginx: reloaded or upgraded if needed'

'sites: reachable through nginx':
  nginx_tree.reached:
    - name: sites
    - require:
      - nginx_process: 'nginx: reloaded or upgraded if needed'

'takeover: former services stopped':
  takeover.settled:
    - name: sites
    - require:
      - nginx_process: 'nginx: reloaded or upgraded if needed'

# After what this run brings is served: the packages' tree is then what both nginx are asked about.
'nginx: package from the configured source':
  nginx_package.current:
    - name: nginx
    - require:
      - nginx_process: 'nginx: reloaded or upgraded if needed'

'nginx: listening sockets':
  nginx_socket.held:
    - name: nginx
    - require:
      - nginx_process: 'nginx: reloaded or upgraded if needed'

'nginx: drain before shutdown':
  host_drain.at_shutdown:
    - name: nginx
    - require:
      - nginx_process: 'nginx: reloaded or upgraded if needed'
