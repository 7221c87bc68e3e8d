"""Restores a picture with network.net in Lava's bit-accurate CPU models of Loihi 2.

    python run.py noisy.png restored.png
    python run.py --proof        compares every layer's spikes and the output with proof.npz

Needs Python 3.10 with lava-dl 0.6.0, lava-nc 0.10.0, torch 2.3, setuptools below 75, numpy below 2, and pillow.
manifest.json says what the numbers below mean.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent


def encode(image, host):
    """Codes (C r r, h, w) of an image (C, H, W) in [0, 1]: integers, edge-padded to whole blocks, pixel-unshuffled, and
    one channel more where the network is told how much noise there is."""
    r = host["unshuffle"]
    scaled = np.rint(image.astype(np.float64) * host["input_scale"])
    codes = np.clip(scaled, host["input_min"], host["input_max"]).astype(np.int64)
    channels, height, width = codes.shape
    codes = np.pad(codes, ((0, 0), (0, -height % r), (0, -width % r)), mode="edge")
    channels, height, width = codes.shape
    blocks = codes.reshape(channels, height // r, r, width // r, r).transpose(0, 2, 4, 1, 3)
    codes = blocks.reshape(channels * r * r, height // r, width // r)
    if not host.get("noise_map"):
        return codes
    return np.concatenate([codes, np.full((1, *codes.shape[1:]), noise_code(image, host))])


def frames(codes, host, steps):
    """What is shown at every step: the codes (C, h, w); or, where ticks keep the time, the codes at the first step
    alone and one channel more a tick, the same value everywhere at the steps that it names."""
    ticks = host.get("ticks")
    if not ticks:
        return [codes] * steps
    channels, height, width = codes.shape
    shown = np.zeros((steps, channels + len(ticks), height, width), codes.dtype)
    shown[0, :channels] = codes
    for place, channel in enumerate(ticks, start=channels):
        for step, value in channel:
            shown[step, place] = value
    return list(shown)


def noise_code(image, host):
    """The code of the noise: its estimate from differences across the diagonals of blocks of 2 x 2 pixels."""
    _, height, width = image.shape
    fine = np.rint(image[:, : height // 2 * 2, : width // 2 * 2].astype(np.float64) * 1020)
    detail = np.abs(fine[:, ::2, ::2] - fine[:, ::2, 1::2] - fine[:, 1::2, ::2] + fine[:, 1::2, 1::2])
    median = np.sort(detail, axis=None)[(detail.size - 1) // 2] if detail.size else 0.0
    return int(np.clip(np.rint(6 * host["input_scale"] * median / 1020), host["input_min"], host["input_max"]))


def decode(output, image, host, scale):
    """Restored image (C, H, W) from the network's mean output (C r r, h, w); `scale` is the image value of one unit."""
    r = host["unshuffle"]
    channels, height, width = output.shape
    shuffled = output.reshape(channels // r**2, r, r, height, width).transpose(0, 3, 1, 4, 2)
    out = scale * shuffled.reshape(channels // r**2, height * r, width * r)[:, : image.shape[1], : image.shape[2]]
    return image.astype(np.float64) - out if host["residual"] else out


def places(length, tile, margin):
    """Where tiles of `tile` places start so that every place is further than `margin` from a cut, or at the border."""
    step = tile - 2 * margin
    if length == tile:
        return [0]
    if length < tile or step < 1:
        raise SystemExit(
            f"the files hold {tile} places a side with a margin of {margin}: an image of {length} places does not "
            "run in them; export the model for the size of the image"
        )
    starts = list(range(0, length - tile, step))
    return [*starts, length - tile]


def cut(codes, manifest):
    """(slices of the whole, slices of the tile that are right in it, codes of the tile) for every tile."""
    _, height, width = manifest["proof"]["input_shape"]
    halo = manifest["halo"]
    margin = max(height, width) if halo is None else -(-halo // manifest["host"]["unshuffle"])
    rows = places(codes.shape[1], height, margin)
    columns = places(codes.shape[2], width, margin)
    for top in rows:
        for left in columns:
            first = margin if top else 0, margin if left else 0
            last = (
                height - (margin if top + height < codes.shape[1] else 0),
                width - (margin if left + width < codes.shape[2] else 0),
            )
            inner = slice(first[0], last[0]), slice(first[1], last[1])
            outer = slice(top + first[0], top + last[0]), slice(left + first[1], left + last[1])
            yield outer, inner, codes[:, top : top + height, left : left + width]


def read_image(path, channels):
    """(C, H, W) float32 in [0, 1]."""
    picture = np.asarray(Image.open(path).convert("L" if channels == 1 else "RGB"), dtype=np.float32) / 255
    return picture[None] if channels == 1 else picture.transpose(2, 0, 1)


def write_image(path, image):
    """Clips to [0, 1], rounds to 8 bits, writes."""
    pixels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).save(path)


def restore(image, manifest, run, scale):
    """Restores an image of any size; `run` takes a list of codes and gives their mean outputs."""
    codes = encode(image, manifest["host"])
    tiles = list(cut(codes, manifest))
    whole = np.zeros((manifest["host"]["channels"] * manifest["host"]["unshuffle"] ** 2, *codes.shape[1:]), np.float64)
    for (outer, inner, _), output in zip(tiles, run([tile for _, _, tile in tiles]), strict=True):
        whole[(slice(None), *outer)] = output[(slice(None), *inner)]
    return decode(whole, image, manifest["host"], scale)


def expected_spikes(manifest, proof, key, prefix):
    """Layer -> (T, C, h, w) bool from the packed bits of the proof."""
    spikes = {}
    for layer in manifest["proof"][key]:
        shape = layer["shape"]
        bits = np.unpackbits(proof[f"{prefix}/{layer['name']}"], count=int(np.prod(shape)))
        spikes[layer["name"]] = bits.reshape(shape).astype(bool)
    return spikes


def compare(name, have, want):
    """One line of the answer of --proof."""
    if have.shape != want.shape:
        return {"name": name, "values": int(want.size), "differing": int(want.size), "first": f"shape {have.shape}"}
    wrong = np.argwhere(have != want)
    first = [int(place) for place in wrong[0]] if len(wrong) else None
    return {"name": name, "values": int(want.size), "differing": len(wrong), "first": first}


def main(run, prove, scale, manifest):
    """The command line: IMAGE OUT, or --proof."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", nargs="?", help="picture to restore")
    parser.add_argument("out", nargs="?", help="where to write it")
    parser.add_argument("--proof", action="store_true", help="run the proof of the bundle and compare every value")
    parser.add_argument("--arrays", metavar="FILE.npz", help="with --proof: keep the spikes and outputs that came out")
    asked = parser.parse_args()
    if asked.proof:
        rows = prove(asked.arrays)
        print(json.dumps({"equal": not any(row["differing"] for row in rows), "compared": rows}))
        return 1 if any(row["differing"] for row in rows) else 0
    if not asked.image or not asked.out:
        parser.error("give IMAGE and OUT, or --proof")
    image = read_image(asked.image, manifest["host"]["channels"])
    write_image(asked.out, restore(image, manifest, run, scale))
    return 0


def built(codes, manifest):
    """The network for codes (W, H, C, step): the process to run, and the layers of neurons by name, the output last."""
    from lava.lib.dl.netx import hdf5
    from lava.proc.io.source import RingBuffer as Source

    timing = manifest["timing"]
    net = hdf5.Network(
        net_config=str(HERE / "network.net"),
        input_message_bits=timing["input_message_bits"],
        reset_interval=timing["reset_interval"],
        reset_offset=timing["reset_offset"],
    )
    Source(data=codes).s_out.connect(net.inp)
    names = [window["layer"] for window in timing["windows"]]
    return net, {name: layer.neuron for name, layer in zip(names, net.layers, strict=True)}


def run_lava(pictures, manifest, states=False):
    """Runs codes (C, h, w) back to back: summed outputs (M, C, h, w) as "output", and "spikes/LAYER" (M, T, C, h, w).

    With `states` also "u/LAYER" and "v/LAYER": currents and membranes after every step.
    """
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.proc.io.sink import RingBuffer as Sink
    from lava.proc.monitor.process import Monitor

    steps, timing, images = manifest["steps"], manifest["timing"], len(pictures)
    count = images * steps + timing["hops"]
    # Lava's axes are (W, H, C, step).
    shown = [frame for codes in pictures for frame in frames(codes, manifest["host"], steps)]
    shown = np.stack([frame.transpose(2, 1, 0) for frame in shown], axis=-1)
    process, layers = built(shown.astype(np.int32), manifest)
    last = timing["windows"][-1]["layer"]
    sinks, monitors = {}, {}
    for name, neurons in layers.items():
        if name != last:
            sinks[name] = Sink(shape=neurons.s_out.shape, buffer=count)
            neurons.s_out.connect(sinks[name].a_in)
        for key in ("u", "v") if states and name != last else ("v",) if name == last else ():
            monitors[f"{key}/{name}"] = Monitor()
            monitors[f"{key}/{name}"].probe(getattr(neurons, key), count)
    process.run(condition=RunSteps(num_steps=count), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
    recorded = {f"spikes/{name}": grids(sink.data.get()) != 0 for name, sink in sinks.items()}
    for key, monitor in monitors.items():
        (values,) = next(iter(monitor.get_data().values())).values()
        shape = layers[key.partition("/")[2]].s_out.shape
        recorded[key] = grids(np.moveaxis(np.reshape(values, (count, *shape)), 0, -1))
    process.stop()
    first = {window["layer"]: window["first"] - 1 for window in timing["windows"]}
    results = {}
    for key, values in recorded.items():
        start = first[key.partition("/")[2]]
        windows = values[start : start + images * steps]
        results[key] = windows.reshape(images, steps, *windows.shape[1:])
    membrane = np.rint(results.pop(f"v/{last}")[:, -1]).astype(np.int64)
    results["output"] = membrane >> timing["readout_shift"]
    return results


def grids(recorded):
    """(W, H, C, steps) or (N, steps) -> (steps, C, H, W)."""
    recorded = np.asarray(recorded)
    if recorded.ndim == 2:
        recorded = recorded[None, None]
    return np.ascontiguousarray(recorded.transpose(3, 2, 1, 0))


def mean_outputs(tiles, manifest):
    """Mean integer output of every tile."""
    return run_lava(tiles, manifest)["output"] / manifest["steps"]


def prove(manifest, arrays=None):
    """Three runs of the proof input back to back, every value compared; `arrays` also keeps what came out."""
    proof = np.load(HERE / "proof.npz", allow_pickle=False)
    images = 3
    results = run_lava([proof["codes"]] * images, manifest)
    if arrays:
        np.savez(arrays, **results)
    expected = expected_spikes(manifest, proof, "layers", "spikes")
    rows = [compare(name, results[f"spikes/{name}"], np.stack([want] * images)) for name, want in expected.items()]
    rows.append(compare("output", results["output"], np.stack([proof["readout"]] * images)))
    if "restored" in proof.files:
        unit = next(layer["unit"] for layer in manifest["layers"] if layer["kind"] == "readout") or 1.0
        mean = results["output"][0] * (unit / manifest["steps"])
        restored = decode(mean, proof["image"], manifest["host"], manifest["host"]["output_scale"])
        rows.append(compare("restored", restored, proof["restored"]))
    return rows


if __name__ == "__main__":
    MANIFEST = json.loads((HERE / "manifest.json").read_text(encoding="utf-8"))
    sys.exit(
        main(
            lambda tiles: mean_outputs(tiles, MANIFEST),
            lambda arrays: prove(MANIFEST, arrays),
            MANIFEST["output_scale"],
            MANIFEST,
        )
    )
