{#-
   The formula's modules reach a minion whose cache is empty or old in the same run.  They are
   fetched while this file renders, with functions that every Salt has, so that a dry run knows
   them too; the state below appears only when something new arrived.

   Salt's sync throws away what Python has compiled of the modules (`__pycache__` is on no file
   server), so it is called only where the modules here are not those of the file server.

   salt-ssh, which alone renders with __master_opts__, has put the modules on the host itself, and
   a sync there would take them away again: the host has no file server to find them on.  Files it
   sends when a state names them: those of the formula, and the pillar's addresses at salt://.
-#}
{%- if '__master_opts__' in opts %}
{%-   set files = ['salt://nginx_uwsgi_django/files'] %}
{%-   for word in (pillar.get('nginx_uwsgi_django') | json).split('"') if word.startswith('salt://') %}
{%-     do files.append(word) %}
{%-   endfor %}
'nginx_uwsgi_django: the files that it needs are sent along':
  test.nop:
    - name: nginx_uwsgi_django
    - files: {{ files | json }}
{%- else %}
{%-   set new = [] %}
{%-   for kind in ('modules', 'states') %}
{%-     set mine = opts['extension_modules'] | path_join(kind) %}
{%-     set here = mine | list_files | select('match', '.*[.]py$') | list %}
{%-     set there = salt['cp.list_master'](saltenv=saltenv, prefix='_' ~ kind) | select('match', '.*[.]py$') | list %}
{%-     set same = namespace(so=here | length == there | length) %}
{%-     for file in there if same.so %}
{%-       set copy = opts['extension_modules'] | path_join(file[1:]) %}
{%-       set hash = salt['cp.hash_file']('salt://' ~ file, saltenv=saltenv) if copy in here else {} %}
{%-       set same.so = hash and hash['hsum'] == copy | file_hashsum(hash['hash_type']) %}
{%-     endfor %}
{%-     if not same.so %}
{%-       do new.extend(salt['saltutil.sync_' ~ kind](saltenv=saltenv, refresh=False)) %}
{%-     endif %}
{%-   endfor %}
{%-   if new %}
'nginx_uwsgi_django: new modules are loaded':
  test.nop:
    - name: {{ new | join(', ') | json }}
    - force_reload_modules: True
{%-   else %}
{}
{%-   endif %}
{%- endif %}
