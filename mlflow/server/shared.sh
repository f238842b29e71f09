#!/bin/sh
# Runs the MLflow server for more than one person: accounts, PostgreSQL, object store.
# README.md in this folder says what each variable means.
set -eu

: "${REGISTRY_DATABASE:?set it to the database, e.g. postgresql://posterion@db.example/mlflow}"
: "${REGISTRY_ARTIFACTS:?set it to the object store, e.g. s3://models.example/mlflow}"
: "${REGISTRY_HOST_NAME:?set it to the name clients use, e.g. mlflow.example}"
: "${MLFLOW_FLASK_SERVER_SECRET_KEY:?set it to a random text that all replicas share}"
: "${MLFLOW_AUTH_CONFIG_PATH:=$(dirname "$0")/basic_auth.ini}"
export MLFLOW_AUTH_CONFIG_PATH

export MLFLOW_ALLOW_PICKLE_DESERIALIZATION=False
export MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_ENABLE_AI_GATEWAY=false
export MLFLOW_MODEL_CATALOG_URI=

# The database address holds a password and a command line is public: MLflow reads the
# address from its environment instead.
export MLFLOW_BACKEND_STORE_URI="$REGISTRY_DATABASE"

exec "${PYTHON:-python3}" -m mlflow server \
  --app-name basic-auth \
  --serve-artifacts --artifacts-destination "$REGISTRY_ARTIFACTS" \
  --host "${REGISTRY_BIND:-127.0.0.1}" --port "${REGISTRY_PORT:-5000}" \
  --workers "${REGISTRY_WORKERS:-4}" \
  --allowed-hosts "$REGISTRY_HOST_NAME" \
  --cors-allowed-origins "https://$REGISTRY_HOST_NAME"
