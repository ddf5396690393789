"""JupyterLab in its container. The token comes from a file, so that no environment holds it."""

import os
import re
from pathlib import Path

from jupyter_server.base.handlers import JupyterHandler

c = get_config()  # type: ignore[name-defined]  # noqa: F821 - Jupyter hands it in

c.ServerApp.ip = "0.0.0.0"  # of the container; compose.yaml says where the machine publishes it
c.ServerApp.port = 8888
c.ServerApp.open_browser = False
c.ServerApp.root_dir = "/workspace/notebooks"
c.ServerApp.quit_button = False
c.IdentityProvider.token = Path("/run/secrets/jupyter_token").read_text().strip()
# A request under another name is turned away: its page may be a stranger's (DNS rebinding).
c.ServerApp.allow_remote_access = False
names = [name.strip() for name in os.environ["ALLOWED_HOSTS"].split(",") if name.strip()]
c.ServerApp.local_hostnames = ["localhost", "notebook", *names]
known = JupyterHandler.check_host  # of that list it takes names alone, no addresses
JupyterHandler.check_host = lambda self: "*" in names or re.sub(r":\d+$", "", self.request.host) in names or known(self)
c.KernelManager.shutdown_wait_time = 20  # a training leaves its last epoch whole
c.KernelManager.transport_encryption = "auto"  # without it, every kernel warns that it has none
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
c.LabApp.extension_manager = "readonly"  # the other one asks PyPI
