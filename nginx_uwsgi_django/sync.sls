{#-
   The formula's modules reach a minion whose cache is empty or old in the same run.  They are
   fetched while this file renders, with functions that every Salt has, so that a dry run knows
   them too; the state below appears only when something new arrived.

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
{%-   set new = salt['saltutil.sync_modules'](saltenv=saltenv, refresh=False)
              + salt['saltutil.sync_states'](saltenv=saltenv, refresh=False) %}
{%-   if new %}
'nginx_uwsgi_django: new modules are loaded':
  test.nop:
    - name: {{ new | join(', ') | json }}
    - reload_modules: True
{%-   else %}
{}
{%-   endif %}
{%- endif %}
