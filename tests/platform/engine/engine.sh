#!/usr/bin/env bash
# A Docker engine for the platform's tests on a Debian machine that has none: from Debian's packages, in a folder of its
# own, on a socket of its own. `engine.sh start` prints the variables that lead to it, `engine.sh stop` stops it.
# Its images stay in the folder, so that the next start finds them.
set -euo pipefail

place=${ENGINE_FOLDER:-/var/tmp/fmnist-engine}
root=$place/root
pid_file=$place/docker.pid
socket=unix://$place/docker.sock

die() { echo "engine: $*" >&2; exit 1; }

mirror() { # where this machine gets its Debian from
  apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 '/debian/$' || die "no Debian mirror is set up"
}

fetch() { # bookworm's own engine cannot build from named contexts: trixie's, unpacked and not installed
  exec 9>/var/tmp/fmnist-apt.lock
  flock 9 # a browser may be installed at the same time
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq runc iptables iproute2 debootstrap >/dev/null
  local apt=$place/apt options
  mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$place/debs"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(mirror) trixie main" >"$apt/sources.list"
  options=(-qq -o APT::Sandbox::User=root -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o Dir::State::Lists="$apt/lists" -o Dir::Cache="$apt/cache")
  apt-get "${options[@]}" update
  (cd "$place/debs" && apt-get "${options[@]}" download \
    docker.io docker-cli containerd docker-buildx docker-compose tini)
  rm -rf "$root" "$root.part"
  for package in "$place"/debs/*.deb; do dpkg -x "$package" "$root.part"; done
  mkdir -p "$place/config"
  ln -sfn "$root/usr/libexec/docker/cli-plugins" "$place/config/cli-plugins"
  mv "$root.part" "$root"
  exec 9>&-
}

running() { [ -f "$pid_file" ] && kill -0 "$(cat "$pid_file")" 2>/dev/null; }

answers() { DOCKER_HOST=$socket "$root/usr/bin/docker" info >/dev/null 2>&1; }

start() {
  [ "$(id -u)" = 0 ] || die "only root can start one; start Docker yourself"
  command -v apt-get >/dev/null || die "it comes from Debian's packages, and this is no Debian; start Docker yourself"
  install -d -m 700 "$place"
  [ -O "$place" ] || die "$place belongs to somebody else; set ENGINE_FOLDER"
  { [ -d "$root" ] && command -v runc iptables debootstrap; } >/dev/null || fetch
  if ! running; then
    PATH=$root/usr/bin:$root/usr/sbin:$PATH setsid dockerd --host "$socket" --data-root "$place/data" \
      --exec-root "$place/exec" --pidfile "$pid_file" --init-path "$root/usr/bin/tini-static" >"$place/dockerd.log" 2>&1 </dev/null &
    for _ in $(seq 600); do
      answers && break
      sleep 0.2
    done
    answers || { tail -20 "$place/dockerd.log" >&2; die "it does not start"; }
  fi
  echo "PATH=$root/usr/bin:$root/usr/sbin:$PATH"
  echo "DOCKER_HOST=$socket"
  echo "DOCKER_CONFIG=$place/config"
}

stop() {
  running || return 0
  local pid
  pid=$(cat "$pid_file")
  kill "$pid"
  for _ in $(seq 1200); do kill -0 "$pid" 2>/dev/null || return 0; sleep 0.1; done
  die "process $pid does not end"
}

case ${1:-} in
  start | stop) "$1" ;;
  *) die "start or stop" ;;
esac
