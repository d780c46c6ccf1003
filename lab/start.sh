#!/bin/sh
# The application in its container: tables first, then the workers.
set -eu
# Without a key of yours, one that lasts until the container is restarted. All workers inherit it.
: "${FLASK_SECRET_KEY:=$(python -c 'import secrets; print("key-" + secrets.token_urlsafe(32))')}"
export FLASK_SECRET_KEY
flask --app lab.app langpont init-db
exec gunicorn --bind 0.0.0.0:8000 --workers 2 --worker-class gthread --threads 8 --worker-tmp-dir /dev/shm \
  --no-control-socket --access-logfile - 'lab.app:create_app()'
