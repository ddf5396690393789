#!/opt/venv/bin/python -IS
"""Healthy: it answers a question about runs, which its database must answer, through its list of allowed hosts."""

import http.client
import sys

connection = http.client.HTTPConnection("mlflow", 5000, timeout=4)
connection.request("GET", "/api/2.0/mlflow/experiments/get?experiment_id=0")
sys.exit(connection.getresponse().status != http.client.OK)
