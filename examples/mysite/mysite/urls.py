"""The site's addresses."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("", include("guestbook.urls")),
    path("admin/", admin.site.urls),
]
