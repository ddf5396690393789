"""A peer: the original's network in PyTorch, written and trained as tutorials do it. Prints an image rate an epoch.

torch_train.py ARRAYS.npz BATCH EPOCHS [cuda]
"""

import json
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def original() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.ReLU(),
        nn.BatchNorm2d(32),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.BatchNorm2d(32),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.BatchNorm2d(64),
        nn.Conv2d(64, 128, 3),
        nn.ReLU(),
        nn.Dropout(0.4),
        nn.Flatten(),
        nn.BatchNorm1d(1152),
        nn.Linear(1152, 128),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(128, 10),
    )


def main(arrays: str, batch_size: int, epochs: int, device: str = "cpu") -> None:
    with np.load(arrays) as file:
        images, labels = torch.tensor(file["images"]), torch.tensor(file["labels"])
    loader = DataLoader(TensorDataset(images[:, None].float() / 255, labels), batch_size=batch_size, shuffle=True)
    model, loss_function = original().to(device), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters())
    rates = []
    for _ in range(epochs):
        started = time.perf_counter()
        model.train()
        for images_there, labels_there in loader:
            x, y = images_there.to(device), labels_there.to(device)
            optimizer.zero_grad()
            loss = loss_function(model(x), y)
            loss.backward()
            optimizer.step()
        float(loss.detach())  # a GPU may still be at it
        rates.append(len(images) / (time.perf_counter() - started))
    print(json.dumps({"rates": rates, "versions": f"PyTorch {torch.__version__}, as tutorials write it"}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
