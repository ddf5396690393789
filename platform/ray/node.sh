#!/bin/sh
# ray-node head|worker|driver: a node of Ray's cluster, until it is told to stop. A program uses a cluster
# from a node of it, or from elsewhere by ray://; the driver's is a node on which nothing is computed.
set -eu
kind=$1
case $kind in
  head) name=gcs ;; # its own name on the network `cluster`: it is on another one too, for the dashboard's port
  *) name=ray-head ;;
esac
while ! address=$(getent ahostsv4 "$name" | awk 'NR == 1 { print $1 }') || [ -z "$address" ]; do sleep 2; done
# The others are asked under the address from which they reach the head, which is one of several as well.
own=$(python -c 'import socket, sys
with socket.socket(type=socket.SOCK_DGRAM) as probe:
    probe.connect((sys.argv[1], 6379))
    print(probe.getsockname()[0])' "$address")
shm=$(df --block-size=1 --output=size /dev/shm | tail -n 1)
set -- --node-ip-address "$own" --object-store-memory $((shm / 2)) --disable-usage-stats --block
case $kind in
  head) set -- "$@" --head --port 6379 --num-cpus "$RAY_CPUS" --dashboard-host 0.0.0.0 --dashboard-port 8265 ;;
  worker) set -- "$@" --address "$address:6379" --num-cpus "$RAY_CPUS" ;;
  driver) set -- "$@" --address "$address:6379" --num-cpus 0 ;;
esac
unset RAY_ADDRESS
# Ray gives a node 30 s to come up, which a busy machine does not keep: it is tried again in here, because Compose takes a
# container that starts again for one that will not get healthy.
ended= left=3
trap 'ended=yes; kill -TERM "$node" 2>/dev/null' TERM INT
while :; do
  began=$(date +%s) code=0
  ray start "$@" &
  node=$!
  wait "$node" || code=$?
  [ -z "$ended" ] || wait "$node" || code=$?
  left=$((left - 1))
  [ -z "$ended" ] && [ "$left" -gt 0 ] && [ $(($(date +%s) - began)) -lt 90 ] || exit "$code"
done
