#!/bin/sh
# The key comes as a file that any user in here could read. Here it is put where only the service's user reads it, in
# memory: it is in no environment and on no command line. An empty file asks clients for none.
set -euf # -f: a * among the names is no pattern
umask 077
if [ -s /run/secrets/api_key ]; then
  cp /run/secrets/api_key /run/fmnist/api_key
  export FMNIST_API_KEY_FILE=/run/fmnist/api_key
fi

# Under which names it may be asked: whatever else a browser is made to send is turned away (DNS rebinding).
hosts="api:8000,localhost:$PUBLISHED_PORT,127.0.0.1:$PUBLISHED_PORT"
for name in $(printf %s "$ALLOWED_HOSTS" | tr ',' ' '); do hosts="$hosts,$name,$name:$PUBLISHED_PORT"; done
export FMNIST_ALLOWED_HOSTS="$hosts"

exec fmnist serve --host 0.0.0.0 --port 8000
