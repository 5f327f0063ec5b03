{#-
   The formula's modules reach a minion whose cache is empty or old in the same run.  They are
   fetched while this file renders, with functions that every Salt has, so that a dry run knows
   them too; the state below appears only when something new arrived.

   Which modules there are says modules.json, and not the file server's list: the server keeps its
   list for 20 seconds (fileserver_list_cache_time; check_file_list_cache() in Salt's
   fileserver/__init__.py), and saltutil.sync_all goes by it.  Right after an upgrade of the formula
   they would mix new modules with old ones.  A single file is never taken from that list.

   salt-ssh, which alone renders with __master_opts__, has put the modules on the host itself, and
   a sync there would take them away again: the host has no file server to find them on.  Files it
   sends when a state names them: those of the formula, and the pillar's addresses at salt://.
-#}
{%- if '__master_opts__' in opts %}
{%-   set files = ['salt://nginx_uwsgi_django/files'] %}
{%-   for word in (pillar.get('nginx_uwsgi_django') | json).split('"') if word.startswith('salt://') %}
{%-     do files.append(word) %}
{%-   endfor %}
'nginx_uwsgi_django: files for salt-ssh':
  test.nop:
    - name: nginx_uwsgi_django
    - files: {{ files | json }}
{%- else %}
{%-   import_json 'nginx_uwsgi_django/modules.json' as names %}
{%-   set new = [] %}
{%-   set lost = [] %}
{%-   for kind in ('modules', 'states') %}
{%-     set here = opts['extension_modules'] | path_join(kind) | list_files %}
{%-     for name in names[kind] %}
{%-       set file = '_' ~ kind ~ '/' ~ name ~ '.py' %}
{%-       set copy = opts['extension_modules'] | path_join(file[1:]) %}
{%-       set hash = salt['cp.hash_file']('salt://' ~ file, saltenv=saltenv) %}
{%-       if not hash %}
{%-         do lost.append(file) %}
{%-       elif copy not in here or hash['hsum'] != copy | file_hashsum(hash['hash_type']) %}
{%-         do salt['cp.get_file']('salt://' ~ file, copy, saltenv=saltenv, makedirs=True) %}
{%-         do new.append(kind ~ '.' ~ name) %}
{%-       endif %}
{%-     endfor %}
{%-   endfor %}
{%-   if lost %}
'nginx_uwsgi_django: modules on the file server':
  test.configurable_test_state:
    - name: nginx_uwsgi_django
    - changes: False
    - result: False
    - comment: >-
        Missing on the file server: {{ lost | join(', ') }}. The checkout of the formula is not whole,
        or is being upgraded right now: run again when it is whole.
    - failhard: True
{%-   endif %}
{%-   if new %}
'nginx_uwsgi_django: modules loaded':
  test.nop:
    - name: {{ new | join(', ') | json }}
    - force_reload_modules: True
{%-   elif not lost %}
{}
{%-   endif %}
{%- endif %}
