"""The same four pages with three kinds of session. Each module is loaded by gunicorn as ``create_app()``."""
