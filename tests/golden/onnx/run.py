"""Restores a picture with network.onnx in onnxruntime.

    python run.py noisy.png restored.png
    python run.py --proof        compares every layer's spikes and the output with proof.npz

Needs onnxruntime, onnx (for --proof alone), numpy and pillow. manifest.json says what the numbers below mean.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

HERE = Path(__file__).resolve().parent
DTYPES = {"tensor(int64)": np.int64, "tensor(double)": np.float64}


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


def options(manifest):
    """form, time and host of the graph."""
    return {"form": "integer", "time": "unrolled", "host": "outside", **manifest["options"]}


def session_of(further=()):
    """A session; tensors named in `further` become outputs, too."""
    data = (HERE / "network.onnx").read_bytes()
    if further:
        import onnx

        model = onnx.load_model_from_string(data)
        known = {output.name for output in model.graph.output}
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in further if name not in known)
        data = model.SerializeToString()
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])


def run_once(session, feed):
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def run_steps(session, first, manifest):
    """What every run of the graph gives for one input: one run, or one a time step with the state handed on."""
    if options(manifest)["time"] == "unrolled":
        return [run_once(session, first)]
    states = {entry.name: entry for entry in session.get_inputs() if entry.name not in first}
    # a state of one place broadcasts, so that a first run tells the sizes
    state = {name: np.zeros((1, entry.shape[1], 1, 1), DTYPES[entry.type]) for name, entry in states.items()}
    if states:
        tried = run_once(session, {**first, **state})
        state = {name: np.zeros_like(tried[f"{name}.after"]) for name in states}
    results = []
    for _ in range(manifest["steps"]):
        results.append(run_once(session, {**first, **state}))
        state = {name: results[-1][f"{name}.after"] for name in states}
    return results


def total_of(results, manifest):
    """The output as the proof holds it: the integer sum over the steps, or the mean of floats."""
    form, time = options(manifest)["form"], options(manifest)["time"]
    name = "readout" if form == "integer" else "output"
    total = sum(result[name][0].astype(np.int64 if form == "integer" else np.float64) for result in results)
    return total / manifest["steps"] if form == "float" and time == "state" else total


def run_onnx(frames, manifest):
    """Outputs (M, C, h, w) of codes (C, h, w), one after another."""
    session = session_of()
    return [
        total_of(run_steps(session, {"codes": frame[None].astype(np.int32)}, manifest), manifest) for frame in frames
    ]


def populations(manifest):
    return {layer["name"]: layer["populations"] for layer in manifest["layers"] if layer["kind"] == "lif"}


def prove(manifest, arrays=None):
    """The proof input, every value compared with what the graph owes; `arrays` also keeps what came out."""
    proof = np.load(HERE / "proof.npz", allow_pickle=False)
    chosen = options(manifest)
    steps = manifest["steps"] if chosen["time"] == "unrolled" else 1
    names = {
        layer: [[f"{layer}.spikes.t{t}.d{d}" for d in range(count)] for t in range(steps)]
        for layer, count in populations(manifest).items()
    }
    output = "readout" if chosen["form"] == "integer" else "output"
    session = session_of([*(n for rows in names.values() for row in rows for n in row), output])
    first = {"codes": proof["codes"][None]} if chosen["host"] == "outside" else {"image": proof["image"][None]}
    results = run_steps(session, first, manifest)
    spikes = {
        layer: np.stack([np.concatenate([result[n][0] for n in row]) for result in results for row in rows])
        for layer, rows in names.items()
    }
    total = total_of(results, manifest)
    if arrays:
        np.savez(arrays, output=total, **{f"spikes/{name}": seen for name, seen in spikes.items()})
    floats = chosen["form"] == "float" and not manifest["equality"]["integers_equal_float"]
    key, prefix = ("float_layers", "float_spikes") if floats else ("layers", "spikes")
    rows = [compare(n, spikes[n], want) for n, want in expected_spikes(manifest, proof, key, prefix).items()]
    if chosen["form"] == "integer":
        wanted = proof["readout"]
    elif floats:
        wanted = proof["float_output"]
    else:
        wanted = proof["readout"] * (manifest["output_scale"] / manifest["host"]["output_scale"]) / manifest["steps"]
    rows.append(compare("output", total, wanted))
    if chosen["host"] == "inside" and chosen["form"] == "integer":
        rows.append(compare("restored", results[0]["restored"][0], proof["restored"]))
    return rows


def scale(manifest):
    """Image value of one unit of what run_onnx gives."""
    if options(manifest)["form"] == "float":
        return manifest["host"]["output_scale"]
    return manifest["output_scale"] / manifest["steps"]


def restore_inside(arguments, manifest):
    """The graph restores the image itself."""
    image = read_image(arguments[0], manifest["host"]["channels"])
    write_image(arguments[1], run_once(session_of(), {"image": image[None]})["restored"][0])
    return 0


if __name__ == "__main__":
    MANIFEST = json.loads((HERE / "manifest.json").read_text(encoding="utf-8"))
    if options(MANIFEST)["host"] == "inside" and len(sys.argv) == 3 and not sys.argv[1].startswith("-"):
        sys.exit(restore_inside(sys.argv[1:], MANIFEST))
    sys.exit(
        main(
            lambda frames: run_onnx(frames, MANIFEST),
            lambda arrays: prove(MANIFEST, arrays),
            scale(MANIFEST),
            MANIFEST,
        )
    )
