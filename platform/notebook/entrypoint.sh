#!/bin/sh
# Shows where to go, as `docker logs jupyter_notebook` is asked for it, and starts JupyterLab.
set -eu
start=/lab
[ ! -e /workspace/notebooks/fashion_mnist.ipynb ] || start=/lab/tree/fashion_mnist.ipynb
echo "http://localhost:$FMNIST_NOTEBOOK_PORT$start?token=$(cat /run/secrets/jupyter_token)"
exec jupyter lab
