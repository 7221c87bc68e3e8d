"""Pictures: reading and writing them, degrading them on purpose, data sets, and the two measures PSNR and SSIM.

Everywhere in this room an image is a float32 array (C, H, W), C = 1 (gray) or 3 (RGB), with values in [0, 1]; a
degraded one may leave that range. Nothing here needs torch.
"""
