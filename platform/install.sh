#!/bin/sh
# pip into /opt/venv: pinned versions; what lies in the context `wheels` first, and nothing else if all of it is there.
set -eu
if [ -e /wheels/complete ]; then set -- --no-index "$@"; fi
exec python -m pip --python /opt/venv/bin/python install --no-warn-script-location --disable-pip-version-check --quiet \
  --find-links /wheels --constraint /build/constraints.txt "$@"
