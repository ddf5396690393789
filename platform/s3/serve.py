"""rclone's S3 server on port 9000, with the bucket `artifacts`.

Its keys are told through its control socket, which only this container's user can open: on its command line `ps` would
show them, and in its environment /proc would.
"""

import configparser
import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

DATA, BUCKET = Path("/data"), "artifacts"
CONTROL = "/tmp/rclone.sock"
ADDRESS = "0.0.0.0:9000"


class Control(http.client.HTTPConnection):
    """HTTP over rclone's socket (https://rclone.org/rc/)."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(CONTROL)


def keys() -> str:
    """In rclone's form, from a file in Amazon's."""
    given = configparser.ConfigParser()
    given.read("/run/secrets/s3_credentials")
    return f"{given['default']['aws_access_key_id']},{given['default']['aws_secret_access_key']}"


def serve() -> None:
    until = time.monotonic() + 30
    while not Path(CONTROL).exists() and time.monotonic() < until:
        time.sleep(0.05)
    asked = {"type": "s3", "fs": str(DATA), "addr": ADDRESS, "auth_key": [keys()]}
    control = Control("rclone")
    control.request("POST", "/serve/start", json.dumps(asked), {"Content-Type": "application/json"})
    answer = control.getresponse()
    told = answer.read().decode()
    if answer.status != http.client.OK:
        sys.exit(f"rclone does not serve: {told}")


def main() -> int:
    (DATA / BUCKET).mkdir(exist_ok=True)
    Path(CONTROL).unlink(missing_ok=True)
    command = ["rclone", "rcd", "--rc-addr", f"unix://{CONTROL}", "--rc-no-auth", "--config", "/dev/null"]
    rclone = subprocess.Popen(command)
    signal.signal(signal.SIGTERM, lambda *_: rclone.terminate())
    try:
        serve()
        return rclone.wait()
    finally:
        rclone.terminate()


if __name__ == "__main__":
    sys.exit(main())
