"""Restores a picture with speck.nir in sinabs, the host's share in numpy.

    python run.py noisy.png restored.png
    python run.py --proof        compares every layer's spikes and the output with proof.npz

Needs sinabs 3.1, nirtorch, nir, torch, numpy and pillow. manifest.json says what the numbers below mean.
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


def correlate(x, weight, stride, padding, dilation, groups):
    """Integer cross-correlation (C, h, w) -> (O, h', w')."""
    x = np.pad(x, ((0, 0), (padding[0],) * 2, (padding[1],) * 2))
    outputs, _, rows, columns = weight.shape
    height = (x.shape[1] - dilation[0] * (rows - 1) - 1) // stride[0] + 1
    width = (x.shape[2] - dilation[1] * (columns - 1) - 1) // stride[1] + 1
    out = np.zeros((outputs, height, width), np.int64)
    ins, outs = x.shape[0] // groups, outputs // groups
    for g in range(groups):
        for i in range(rows):
            for j in range(columns):
                top, left = i * dilation[0], j * dilation[1]
                seen = x[g * ins : (g + 1) * ins, top : top + (height - 1) * stride[0] + 1 : stride[0]]
                seen = seen[:, :, left : left + (width - 1) * stride[1] + 1 : stride[1]]
                part = slice(g * outs, (g + 1) * outs)
                out[part] += np.einsum("oc,chw->ohw", weight[part, :, i, j], seen)
    return (out + (1 << 23)) % (1 << 24) - (1 << 23)


class Host:
    """The host's share: the first convolution with its neurons, and the last convolution."""

    def __init__(self):
        arrays = np.load(HERE / "integers.npz", allow_pickle=False)
        said = json.loads(arrays["description"].tobytes())
        self.nodes = said["nodes"]
        convs = [node for node in self.nodes if node["kind"] == "conv"]
        self.first, self.last = convs[0], convs[-1]
        self.weights = {node["name"]: arrays[f"weight/{node['name']}"] for node in (self.first, self.last)}
        lifs = [node for node in self.nodes if node["kind"] == "lif"]
        self.lif, self.on_chip = lifs[0], lifs[1:]
        self.readout = next(node for node in self.nodes if node["kind"] == "readout")

    def convolve(self, node, x):
        keys = ("stride", "padding", "dilation", "groups")
        return correlate(x, self.weights[node["name"]], *(node[key] for key in keys))

    def spikes(self, codes, steps):
        """(T, D * C, h, w): what the first layer sends to the chip; Loihi's neuron, current and membrane of 24 bits."""
        lif, limit = self.lif, 1 << 23
        current = self.convolve(self.first, codes.astype(np.int64)) << 6

        def decay(x, amount):
            amount = np.reshape(np.asarray(amount), (-1, 1, 1))
            return np.sign(x) * ((np.abs(x) * (4096 - amount)) >> 12)

        bias = np.add.outer(np.array(lif["levels"]), np.array(lif["bias"]))[:, :, None, None] << 6
        u, v, seen = np.zeros_like(current), np.zeros((len(lif["levels"]), *current.shape), np.int64), []
        for _ in range(steps):
            u = decay(u, lif["i_decay"]) + current
            u = np.where(u > limit, u - 2 * limit, np.where(u <= -limit, u + 2 * limit, u))
            v = np.clip(decay(v, lif["v_decay"]) + u + bias, 1 - limit, limit - 1)
            fired = v > lif["vth"] << 6
            v = np.where(fired, 0, v)
            seen.append(fired.reshape(-1, *fired.shape[2:]))
        return np.stack(seen)

    def output(self, spikes):
        """The readout (C, h, w), summed over the steps, from the spikes (T, D * C, h, w) that come back."""
        channels = self.weights[self.last["name"]].shape[1] * self.last["groups"]
        counts = spikes.reshape(len(spikes), -1, channels, *spikes.shape[2:]).sum(axis=1).astype(np.int64)
        bias = np.array(self.readout["bias"])[:, None, None]
        return sum(self.convolve(self.last, x) + bias for x in counts)


def load_chip(steps):
    """The chip's part in sinabs, with neurons that spike once a step and are then reset to 0, as the graph says."""
    import nir
    import sinabs.activation as activation
    import sinabs.layers
    import sinabs.nir

    model = sinabs.nir.from_nir(nir.read(HERE / "speck.nir"), num_timesteps=steps)
    for module in model.modules():
        if isinstance(module, sinabs.layers.LIF):  # IAF is a subclass
            module.spike_fn, module.reset_fn = activation.SingleSpike, activation.MembraneReset()
            module.min_v_mem = None
    return model


def run_chip(frames, manifest):
    """Spikes {layer: (M, T, C, h, w)} and summed outputs (M, C, h, w) of codes (C, h, w), one after another."""
    import torch

    host, steps = Host(), manifest["steps"]
    seen = {host.lif["name"]: [], **{lif["name"]: [] for lif in host.on_chip}}
    outputs = []
    for frame in frames:
        model = load_chip(steps)
        for name in [lif["name"] for lif in host.on_chip]:
            model.get_submodule(name).register_forward_hook(
                lambda _module, _inputs, out, kept=seen[name]: kept.append(out.detach().numpy() != 0)
            )
        sent = host.spikes(frame, steps)
        seen[host.lif["name"]].append(sent)
        with torch.no_grad():
            model(torch.from_numpy(sent.astype(np.float32)))
        outputs.append(host.output(seen[host.on_chip[-1]["name"]][-1]))
    return {name: np.stack(kept) for name, kept in seen.items()}, np.stack(outputs)


def prove(manifest, arrays=None):
    """The proof input, every value compared with what the integers owe; `arrays` also keeps what came out."""
    proof = np.load(HERE / "proof.npz", allow_pickle=False)
    spikes, outputs = run_chip([proof["codes"]], manifest)
    if arrays:
        np.savez(arrays, output=outputs, **{f"spikes/{name}": seen for name, seen in spikes.items()})
    wanted = expected_spikes(manifest, proof, "layers", "spikes")
    rows = [compare(name, spikes[name][0], want) for name, want in wanted.items()]
    return [*rows, compare("output", outputs[0], proof["readout"])]


if __name__ == "__main__":
    MANIFEST = json.loads((HERE / "manifest.json").read_text(encoding="utf-8"))
    sys.exit(
        main(
            lambda frames: run_chip(frames, MANIFEST)[1],
            lambda arrays: prove(MANIFEST, arrays),
            MANIFEST["output_scale"] / MANIFEST["steps"],
            MANIFEST,
        )
    )
