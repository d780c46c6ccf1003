"""Django's ``cached_db`` sessions: Django's own RedisCache, and its session table.

``python -m benchmarks.outages.django_app`` makes the table.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

import django
from django.conf import settings
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from .flask_apps import DATABASE_URL, LISTS, REDIS_URL, SECRET_KEY, TIMEOUT, USER, shown


def configure() -> None:
    """Configure Django as its documentation has it, with persistent connections to the database and 1 s time-outs."""
    database = urlsplit(os.environ[DATABASE_URL])
    settings.configure(
        SECRET_KEY=SECRET_KEY,
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        INSTALLED_APPS=["django.contrib.sessions"],
        MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
        SESSION_ENGINE="django.contrib.sessions.backends.cached_db",
        CACHES={
            "default": {
                "BACKEND": "django.core.cache.backends.redis.RedisCache",
                "LOCATION": os.environ[REDIS_URL],
                "OPTIONS": {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT},
            }
        },
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "HOST": database.hostname,
                "PORT": database.port,
                "USER": database.username,
                "PASSWORD": database.password,
                "NAME": database.path.removeprefix("/"),
                "CONN_MAX_AGE": 60,
                "CONN_HEALTH_CHECKS": True,
                "OPTIONS": {"connect_timeout": TIMEOUT},
            }
        },
    )


def create_app() -> Any:
    """Return the WSGI application."""
    configure()
    return get_wsgi_application()


def live(request: HttpRequest) -> HttpResponse:
    """Answer that the server runs."""
    return HttpResponse("ok")


def sign_in(request: HttpRequest) -> HttpResponse:
    """Sign in as :func:`django.contrib.auth.login` does: a new id, then the user."""
    request.session.cycle_key()
    request.session[USER] = request.POST["user"]
    return read(request)


def read(request: HttpRequest) -> HttpResponse:
    """Answer the content of the session."""
    return JsonResponse(shown(request.session))


def write(request: HttpRequest, what: str) -> HttpResponse:
    """Add one number to a list."""
    key = LISTS[what]
    request.session[key] = [*request.session.get(key, []), int(request.POST["number"])]
    return read(request)


def sign_out(request: HttpRequest) -> HttpResponse:
    """Sign out as :func:`django.contrib.auth.logout` does."""
    request.session.flush()
    return read(request)


urlpatterns = [
    path("healthz/live", live),
    path("sign-in", sign_in),
    path("read", read),
    path("write/<str:what>", write),
    path("sign-out", sign_out),
]

if __name__ == "__main__":
    configure()
    django.setup()
    call_command("migrate", interactive=False, verbosity=0)
