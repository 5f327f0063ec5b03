include:
  - nginx_uwsgi_django.pillar

'nginx: its tree is the distribution''s again':
  nginx_tree.removed:
    - name: nginx
    - require:
      - sls: nginx_uwsgi_django.pillar

'nginx: it runs what is on disk':
  nginx_process.let_go:
    - name: nginx
    - require:
      - nginx_tree: 'nginx: its tree is the distribution''s again'
