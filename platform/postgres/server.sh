#!/bin/sh
# The official entrypoint leaves the superuser's password in the environment of what it starts: it ends here.
unset POSTGRES_PASSWORD
exec /usr/lib/postgresql/17/bin/postgres "$@"
