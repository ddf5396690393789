#!/bin/bash
# Healthy: it answers, and who shows no keys is refused.
exec 3<>/dev/tcp/127.0.0.1/9000 || exit 1
printf 'GET / HTTP/1.0\r\nHost: s3:9000\r\n\r\n' >&3
read -r _ status _ <&3
[ "$status" = 400 ] || [ "$status" = 403 ]
