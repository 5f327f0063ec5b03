"""The guest book in the admin."""

from django.contrib import admin

from .models import Entry


@admin.register(Entry)
class EntryAdmin(admin.ModelAdmin):
    list_display = ["message", "attachment", "created"]
    search_fields = ["message"]
