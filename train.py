#!/usr/bin/env python
"""Train, validate and test: `python train.py fit --config configs/demo.yaml`."""

from app.training.command import main

if __name__ == "__main__":
    main()
