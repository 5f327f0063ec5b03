#!yaml
include:
  - nginx_uwsgi_django.sync

# failhard: a pillar with errors is one short report, not that report and a failed requisite for
# every other state.
'nginx_uwsgi_django: pillar validated':
  site_pillar.valid:
    - name: nginx_uwsgi_django
    - failhard: True
