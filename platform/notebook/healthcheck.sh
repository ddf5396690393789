#!/bin/bash
# Healthy: JupyterLab's API answers. Without a Python for it: this is asked every few seconds, beside trainings.
exec 3<>/dev/tcp/127.0.0.1/8888 || exit 1
printf 'GET /api HTTP/1.0\r\nHost: localhost:8888\r\n\r\n' >&3
read -r _ status _ <&3
[ "$status" = 200 ]
