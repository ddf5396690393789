#!/bin/bash
# healthcheck PORT PATH HOST STATUS…: healthy if what listens there answers with one of these. Without a Python for it:
# this is asked every few seconds, beside trainings.
port=$1 path=$2 host=$3
shift 3
exec 3<>"/dev/tcp/127.0.0.1/$port" || exit 1
printf 'GET %s HTTP/1.0\r\nHost: %s\r\n\r\n' "$path" "$host" >&3
read -r _ status _ <&3
for expected in "$@"; do [ "$status" = "$expected" ] && exit 0; done
exit 1
