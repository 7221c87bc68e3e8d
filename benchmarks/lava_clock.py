"""Seconds a time step of a Lava network takes: python lava_clock.py NETWORK.net CODES.npy STEPS ROUNDS

Run by the interpreter that has Lava. Codes are (W, H, C, steps), and repeat. The first steps, in which processes are
started and programs are compiled, are not timed; nothing but the network runs, no monitor and no sink.
"""

import json
import sys
import time
from importlib.metadata import version

import numpy as np
from lava.lib.dl.netx import hdf5
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.io.source import RingBuffer as Source

WARM = 2

if __name__ == "__main__":
    network, codes, steps, rounds = sys.argv[1], np.load(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    net = hdf5.Network(net_config=network, input_message_bits=16)
    source = Source(data=codes)
    source.s_out.connect(net.inp)
    config = Loihi2SimCfg(select_tag="fixed_pt")
    net.run(condition=RunSteps(num_steps=WARM), run_cfg=config)
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        net.run(condition=RunSteps(num_steps=steps), run_cfg=config)
        seconds.append((time.perf_counter() - start) / steps)
    net.stop()
    print(json.dumps({"lava-nc": version("lava-nc"), "lava-dl": version("lava-dl"), "seconds_a_step": seconds}))
