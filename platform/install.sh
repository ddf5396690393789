#!/bin/sh
# Makes /opt/venv, and installs pinned versions into it. What lies in the context `wheels` goes first, and if `make wheels`
# has put all of these versions there ($COMPLETE is its mark for that), nothing else is asked.
set -eu
if cmp -s "/wheels/${COMPLETE:-constraints.txt}" /build/constraints.txt; then set -- --no-index "$@"; fi
python -m venv --without-pip /opt/venv
exec python -m pip --python /opt/venv/bin/python install --no-warn-script-location --disable-pip-version-check --quiet \
  --find-links /wheels --constraint /build/constraints.txt "$@"
