#!yaml
# Takes back, in reverse order, what the formula made.  Releases, databases and uploads stay unless
# the pillar says `nginx_uwsgi_django:clean:data: true`.
include:
  - nginx_uwsgi_django.schedule.clean
  - nginx_uwsgi_django.ec2.clean
  - nginx_uwsgi_django.nginx.clean
  - nginx_uwsgi_django.django.clean
  - nginx_uwsgi_django.package.clean
