#!/bin/sh
# ray-node head|worker|driver: a node of Ray's cluster, until it is told to stop. A program can only use a cluster from
# a machine that is a node of it; the driver's is one that nothing else is computed on.
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
exec ray start "$@"
