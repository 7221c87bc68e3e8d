"""Runs networks in Lava, one after another in one process: python worker.py FOLDER...

Each folder holds the run.py of a bundle, its network, manifest.json and codes.npy, (M, C, h, w): M images back to back.
What comes out is left there as results.npz: see run_lava in run.py.
"""

import importlib.util
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np


def run(folder):
    """One network: codes.npy in, results.npz out."""
    specification = importlib.util.spec_from_file_location("run", folder / "run.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    results = module.run_lava(list(np.load(folder / "codes.npy")), manifest, states=manifest.get("states", True))
    for key, values in results.items():
        if values.dtype != bool:
            results[key] = np.rint(values).astype(np.int32)
    np.savez(folder / "results.npz", **results)


def end_with(parent):
    """Ends this process and all that Lava has started when whoever asked for it is gone."""
    while os.getppid() == parent:
        time.sleep(0.5)
    if os.getpgid(0) == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    for name in sys.argv[1:]:
        run(Path(name))
        print(f"{name}: done", flush=True)
