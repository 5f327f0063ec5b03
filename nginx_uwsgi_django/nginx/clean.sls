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

'certificates are renewed no more':
  site_certificate.retired:
    - name: nginx_uwsgi_django
    - everything: True
    - require:
      - nginx_process: 'nginx: it runs what is on disk'
