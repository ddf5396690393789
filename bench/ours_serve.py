"""Ours, the champion served by itself, with one difference: no request waits for others, nor do they share a call.

ours_serve.py PORT
"""

import sys
from typing import Any

from fmnist.serve.server import serve
from fmnist.serve.wiring import make_service
from fmnist.settings import Settings
from fmnist.workspace import Workspace


def main(port: int) -> None:
    service = make_service(Workspace(Settings()), "champion", "127.0.0.1", port)

    async def answer(images: Any) -> Any:
        model = service.keeper.model
        assert model is not None
        return model, model.predictor.probabilities(images)

    service.batcher.answer = answer  # type: ignore[method-assign]
    serve(service, "127.0.0.1", port)


if __name__ == "__main__":
    main(int(sys.argv[1]))
