#!/bin/sh
# Secrets come as files that any user in here could read. Here they are put where only MLflow's user reads them, in
# memory, in the forms that libpq and boto3 know: none is in an environment or on a command line.
set -euf # -f: a * in ALLOWED_HOSTS is no pattern of file names
umask 077
own=/run/mlflow
printf 'postgres:5432:mlflow:mlflow:%s\n' "$(cat /run/secrets/mlflow_database_password)" >"$own/pgpass"
cp /run/secrets/s3_credentials "$own/s3_credentials"
export AWS_SHARED_CREDENTIALS_FILE="$own/s3_credentials"
export MLFLOW_BACKEND_STORE_URI="postgresql+psycopg2://mlflow@postgres:5432/mlflow?passfile=$own/pgpass"
[ -n "$MLFLOW_S3_ENDPOINT_URL" ] || unset MLFLOW_S3_ENDPOINT_URL

# Under which names it may be asked: whatever else a browser is made to send is turned away (DNS rebinding).
hosts="mlflow:5000,localhost:$PUBLISHED_PORT,127.0.0.1:$PUBLISHED_PORT"
[ "$PUBLISHED_PORT" != 80 ] || hosts="$hosts,localhost,127.0.0.1" # whose number browsers leave out
# And whose pages may change something: its own, under these names; MLflow itself knows of localhost alone.
pages=
for name in $(printf %s "$ALLOWED_HOSTS" | tr 'A-Z,' 'a-z '); do # as browsers send them
  hosts="$hosts,$name,$name:$PUBLISHED_PORT"
  pages="$pages,http://$name:$PUBLISHED_PORT,http://$name,https://$name,https://$name:$PUBLISHED_PORT" # a proxy's too
done
export MLFLOW_SERVER_ALLOWED_HOSTS="$hosts" MLFLOW_SERVER_CORS_ALLOWED_ORIGINS="${pages#,}"

exec mlflow server --host 0.0.0.0 --port 5000 --workers "$MLFLOW_WORKERS" --uvicorn-opts "--log-level warning"
