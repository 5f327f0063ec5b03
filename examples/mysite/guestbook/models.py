"""What a guest leaves behind."""

from django.db import models


class Entry(models.Model):
    """A message, with a file if the guest likes."""

    message = models.CharField(max_length=280)
    attachment = models.FileField(upload_to="%Y/%m", blank=True)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created", "-pk"]
        verbose_name_plural = "entries"

    def __str__(self) -> str:
        return self.message
