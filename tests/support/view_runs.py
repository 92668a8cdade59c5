"""Runs for the page of hcrot view."""

import hcrot


def save_two_networks(run, channels=1):
    """A run of two networks of 8x8 and 16x16 that have learned nothing."""
    shape = {"block_out_channels": (8, 8), "norm_num_groups": 4, "down_block_types": ("DownBlock2D",) * 2, "generator": 0,
             "up_block_types": ("UpBlock2D",) * 2, "layers_per_block": 1, "out_channels": channels}  # fmt: skip
    for place, size, seen in ((run, 16, 2 * channels), (run / "small", 8, channels)):
        model = hcrot.UNet2dModel(sample_size=size, in_channels=seen, **shape)
        hcrot.save_checkpoint(place / "checkpoint", model, hcrot.DDPMScheduler(num_train_timesteps=200))
