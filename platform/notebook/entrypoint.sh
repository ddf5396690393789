#!/bin/sh
# Shows where to go, as `docker logs jupyter_notebook` is asked for it, and runs JupyterLab until it is told to stop.
set -eu
start=/lab
[ ! -e /workspace/notebooks/fashion_mnist.ipynb ] || start=/lab/tree/fashion_mnist.ipynb
echo "http://localhost:$FMNIST_NOTEBOOK_PORT$start?token=$(cat /run/secrets/jupyter_token)"

# Where there is a cluster, this is a node of it, so that cells and trainings find it; it comes again if the cluster does.
! command -v ray >/dev/null || while :; do ray-node driver >/tmp/ray-node.log 2>&1 || true; sleep 5; done &

# Docker tells only the first process that it is to end. Trainings started from outside are told here, and waited for:
# they leave their last epoch whole.
trap 'kill -TERM -1' TERM INT
jupyter lab &
wait $! || code=$?
trap '' TERM INT
wait $! || code=$?
training() { cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' ' ' | grep -q 'bin/fmnist trai[n]'; }
for _ in $(seq 100); do training || break; sleep 0.2; done
exit "${code:-0}"
