{#-
   The formula's modules reach a minion whose cache is empty or old in the same run.  They are
   fetched while this file renders, with functions that every Salt has, so that a dry run knows
   them too; the state below appears only when something new arrived.
-#}
{%- set new = salt['saltutil.sync_modules'](saltenv=saltenv, refresh=False)
            + salt['saltutil.sync_states'](saltenv=saltenv, refresh=False) %}
{%- if new %}
'nginx_uwsgi_django: new modules are loaded':
  test.nop:
    - name: {{ new | join(', ') | json }}
    - reload_modules: True
{%- else %}
{}
{%- endif %}
