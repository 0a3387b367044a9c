"""Train, validate and test: `python train.py fit --config configs/demo.yaml`."""

from app.training.cli import main

if __name__ == "__main__":
    main()
