#!yaml
# A Django site served by nginx through uWSGI, from the pillar `nginx_uwsgi_django`.
# The application comes first: a page is announced by nginx once there is something to answer it,
# and the world is let in (ec2) before a certificate authority comes to look.
include:
  - nginx_uwsgi_django.sync
  - nginx_uwsgi_django.pillar
  - nginx_uwsgi_django.package
  - nginx_uwsgi_django.nginx.account
  - nginx_uwsgi_django.uwsgi
  - nginx_uwsgi_django.nginx
  - nginx_uwsgi_django.ec2
  - nginx_uwsgi_django.nginx.certificates
  - nginx_uwsgi_django.absent
  - nginx_uwsgi_django.purge
  - nginx_uwsgi_django.schedule
