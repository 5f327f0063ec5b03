"""Addresses of the start page and the guest book."""

from django.urls import path

from . import views

urlpatterns = [
    path("", views.start, name="start"),
    path("entries/", views.entries, name="entries"),
    path("entries/<int:pk>/attachment", views.attachment, name="attachment"),
]
