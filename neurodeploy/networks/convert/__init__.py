"""From an ONNX network without spikes to a spiking student of the same shape, by balancing thresholds."""
