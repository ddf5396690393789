#!/usr/bin/env bash
# The images that the platform's Dockerfiles build on. Where no image registry can be reached, stand-ins made from
# Debian's packages take their names, so that the Dockerfiles are tested as they are.
set -euo pipefail
cd "$(dirname "$0")"

python=python:3.11-slim-bookworm
postgres=postgres:17-bookworm
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 '/debian/$')
scratch=$(mktemp -d)
trap 'wait; rm -rf "$scratch"' EXIT

there() { docker image inspect "$1" >/dev/null 2>&1 || timeout 60 docker pull -q "$1" >/dev/null 2>&1; }

stand_in() { # image, Debian release, packages; the rest: what `docker import` is to note
  local image=$1 release=$2 packages=$3 folder=$scratch/$2
  shift 3
  debootstrap --variant=minbase --include="$packages,ca-certificates" "$release" "$folder" "$mirror" >"$folder.log" ||
    { tail "$folder.log" >&2; exit 1; }
  rm -rf "$folder"/var/cache/apt/archives/*.deb "$folder"/var/lib/apt/lists/*
  cp /etc/ssl/certs/ca-certificates.crt "$folder/etc/ssl/certs/"  # whom this machine trusts
  "$@" "$folder"
  tar -C "$folder" -c . | docker import "${changes[@]}" - "$image" >/dev/null
}

like_python() {
  ln -s python3 "$1/usr/bin/python"
  rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED
  local bundle=/etc/ssl/certs/ca-certificates.crt
  changes=(-c "ENV PIP_CERT=$bundle" -c "ENV SSL_CERT_FILE=$bundle" -c "ENV REQUESTS_CA_BUNDLE=$bundle" -c "CMD [\"python3\"]")
}

like_postgres() {
  install -m 755 postgres-entrypoint.sh "$1/usr/local/bin/docker-entrypoint.sh"
  mkdir -p "$1/docker-entrypoint-initdb.d"
  install -d -m 1777 -o 999 -g 999 "$1/var/lib/postgresql/data" "$1/var/run/postgresql"
  chroot "$1" usermod -u 999 postgres
  chroot "$1" groupmod -g 999 postgres
  chown -R 999:999 "$1/var/lib/postgresql" "$1/var/run/postgresql"
  changes=(-c "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/17/bin"
    -c "ENV PGDATA=/var/lib/postgresql/data" -c "VOLUME /var/lib/postgresql/data" -c "STOPSIGNAL SIGINT"
    -c "EXPOSE 5432" -c "ENTRYPOINT [\"docker-entrypoint.sh\"]" -c "CMD [\"postgres\"]")
}

{ there "$postgres" || stand_in "$postgres" trixie postgresql-17 like_postgres; } &
there "$python" || stand_in "$python" bookworm python3,python3-pip,python3-venv like_python
wait $!
