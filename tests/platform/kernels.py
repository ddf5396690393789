"""A live kernel, spoken to as a page in a browser does."""

import json
import uuid
from typing import Any

import websocket

TIMEOUT = 300  # seconds for an answer; a busy machine is no fault


class Kernel:
    """A live kernel in the notebook's container, spoken to through Jupyter's published port, as a page does.

    Messages: https://jupyter-client.readthedocs.io/en/stable/messaging.html
    """

    def __init__(self, platform: Any) -> None:
        self.session, self.platform = uuid.uuid4().hex, platform
        self.headers = {"Authorization": f"token {platform.token}"}
        answer = platform.http.post(f"{platform.notebook}/api/kernels", headers=self.headers, timeout=60)
        answer.raise_for_status()
        self.id = answer.json()["id"]
        address = f"{platform.notebook.replace('http', 'ws')}/api/kernels/{self.id}/channels"
        self.socket = websocket.create_connection(address, header=self.headers, timeout=TIMEOUT, http_no_proxy=["*"])

    def run(self, source: str) -> list[dict[str, Any]]:
        """The outputs of a cell. An exception in it is an AssertionError here."""
        header = {"msg_id": uuid.uuid4().hex, "session": self.session, "username": "", "version": "5.4"}
        content = {"code": source, "silent": False, "store_history": True, "allow_stdin": False, "stop_on_error": True}
        message = {"header": header | {"msg_type": "execute_request"}, "parent_header": {}, "metadata": {}}
        self.socket.send(json.dumps(message | {"content": content, "channel": "shell", "buffers": []}))
        outputs: list[dict[str, Any]] = []
        while True:
            answer = json.loads(self.socket.recv())
            if answer["parent_header"].get("msg_id") != header["msg_id"]:
                continue
            kind, values = answer["msg_type"], answer["content"]
            assert kind != "error", "\n".join([source, *values["traceback"]])
            if kind in ("stream", "display_data", "execute_result", "update_display_data"):
                outputs.append(values)
            if kind == "status" and values["execution_state"] == "idle":
                return outputs

    def value(self, source: str) -> str:
        """What the cell's last line is, as text."""
        return str(self.run(source)[-1]["data"]["text/plain"])

    def close(self) -> None:
        self.socket.close()
        self.platform.http.delete(f"{self.platform.notebook}/api/kernels/{self.id}", headers=self.headers, timeout=60)
