"""Networks small enough to be made, saved and run in milliseconds."""

import numpy as np

from hcrot.models.unet_2d import UNet2dModel

# attention on the lower of two levels
SMALL = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
}
TINY = SMALL | {"sample_size": (5, 6), "block_out_channels": (4, 8), "norm_num_groups": 2, "num_class_embeds": 3}
# two residual blocks to a level, ten classes, any size
TEST_NET = {
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 4,
    "num_class_embeds": 10,
}


def make(config, **changes):
    return UNet2dModel(**config | changes, generator=np.random.default_rng(0))


def draw(shape, dtype=np.float32, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def tiny_model(seed=0, **options):
    return UNet2dModel(**TINY | options, generator=np.random.default_rng(seed))
