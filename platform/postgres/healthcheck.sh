#!/bin/bash
# Healthy: it takes a query from MLflow's user, over the network and with the password, as MLflow's come.
umask 077
printf 'postgres:5432:mlflow:mlflow:%s' "$(cat /run/secrets/mlflow_database_password)" >/tmp/healthcheck.pgpass
PGPASSFILE=/tmp/healthcheck.pgpass exec psql --host postgres --username mlflow --dbname mlflow --no-psqlrc --quiet \
  --output /dev/null --command 'SELECT 1'
