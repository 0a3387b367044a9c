#!/usr/bin/env python
"""Predict depth: `python predict.py IMAGES --model MODEL --output DIR`."""

from app.prediction.command import main

if __name__ == "__main__":
    main()
