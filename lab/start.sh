#!/bin/sh
# The application in its container: tables first, then the workers.
set -eu
# Without a key of yours, one that lasts until the container is restarted. All workers inherit it.
: "${FLASK_SECRET_KEY:=$(python -c 'import secrets; print("key-" + secrets.token_urlsafe(32))')}"
export FLASK_SECRET_KEY
flask --app lab.app langpont init-db
export PROMETHEUS_MULTIPROC_DIR=/tmp/prometheus # of the workers only: their server makes it, and a command would miss it
exec gunicorn --config infra/gunicorn.conf.py --bind 0.0.0.0:8000 --workers 2 --no-control-socket --access-logfile - \
  'lab.app:create_app()'
