#!/bin/sh
# POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB and PGDATA as in the official image: made on an empty data folder.
set -eu
PGDATA="${PGDATA:-/var/lib/postgresql/data}"
export PGDATA
if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA"
    chown -R postgres:postgres "$PGDATA" /var/run/postgresql
    chmod 700 "$PGDATA"
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    : "${POSTGRES_PASSWORD:?}"
    secret="$(mktemp)"
    printf '%s\n' "$POSTGRES_PASSWORD" >"$secret"
    initdb --username="${POSTGRES_USER:-postgres}" --pwfile="$secret" --auth-host=scram-sha-256 --encoding=UTF8
    rm -f "$secret"
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    # Unreachable from outside until the database is there, so that a health check over TCP cannot pass too early.
    pg_ctl -w -o "-c listen_addresses=''" start
    if [ "${POSTGRES_DB:-postgres}" != postgres ]; then
        createdb --username="${POSTGRES_USER:-postgres}" "$POSTGRES_DB"
    fi
    pg_ctl -w -m fast stop
fi
[ "$1" = postgres ] && shift
exec postgres -c listen_addresses='*' "$@"
