#!/bin/bash
# Healthy: its page answers. Without a Python for it: this is asked every few seconds, beside trainings.
exec 3<>/dev/tcp/127.0.0.1/6006 || exit 1
printf "GET / HTTP/1.0\r\nHost: localhost:$PUBLISHED_PORT\r\n\r\n" >&3
read -r _ status _ <&3
[ "$status" = 200 ]
