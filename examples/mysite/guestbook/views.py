"""The start page, the guest book and its attachments."""

import django
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from .forms import EntryForm
from .models import Entry


@require_safe
def start(request: HttpRequest) -> HttpResponse:
    """The page that says that it works."""
    return render(request, "guestbook/start.html", {"version": django.get_version()})


@require_http_methods(["GET", "HEAD", "POST"])
def entries(request: HttpRequest) -> HttpResponse:
    """Read what is there, and add to it."""
    form = EntryForm()
    if request.method == "POST":
        form = EntryForm(request.POST, request.FILES)
        if form.is_valid():
            form.save()
            return redirect("entries")
    status = 422 if form.errors else 200
    context = {"form": form, "entries": Entry.objects.all()[:50]}
    return render(request, "guestbook/entries.html", context, status=status)


@require_safe
def attachment(request: HttpRequest, pk: int) -> FileResponse:
    """A guest's file, to be saved and never to be shown: it could be a page with a script."""
    entry = get_object_or_404(Entry, pk=pk)
    if not entry.attachment:
        raise Http404("this entry has no attachment")
    return FileResponse(
        entry.attachment.open(), as_attachment=True, content_type="application/octet-stream"
    )
