"""A peer: LitServe and ONNX Runtime, as its guide writes an API, JSON alone.

MODEL=model.onnx python serve_litserve.py PORT
"""

import json
import os
import sys

import litserve
import numpy as np
import onnxruntime


class Api(litserve.LitAPI):
    def setup(self, device):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
        self.names = json.loads(self.session.get_modelmeta().custom_metadata_map["class_names"])
        self.input = self.session.get_inputs()[0].name

    def decode_request(self, request):
        return np.array(request["inputs"], np.uint8).reshape(1, 28, 28)

    def predict(self, image):
        return self.session.run(None, {self.input: image})[0][0]

    def encode_response(self, row):
        return {"label": self.names[row.argmax()], "probabilities": dict(zip(self.names, row.tolist(), strict=True))}


if __name__ == "__main__":
    server = litserve.LitServer(Api(), accelerator="cpu")
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False, log_level="warning"
    )
