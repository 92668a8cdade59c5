"""Networks and pipelines in folders, against diffusers: each opens what the other wrote, tensor for tensor and byte for byte."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

import safetensors.numpy  # noqa: E402

from hcrot import pipelines  # noqa: E402
from hcrot.models.unet_2d import UNet2dModel  # noqa: E402
from hcrot.schedulers import DDPMScheduler  # noqa: E402
from support.small_unets import SMALL  # noqa: E402

CONFIGS = {
    "classes": {"num_class_embeds": 10},
    "plain": {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2, "sample_size": (8, 12)},
    "fourier": {"time_embedding_type": "fourier", "class_embed_type": "timestep"},
    "learned": {"time_embedding_type": "learned", "num_train_timesteps": 50, "resnet_time_scale_shift": "scale_shift"},
    "resnet samplers": {"downsample_type": "resnet", "upsample_type": "resnet", "mid_block_type": None},
}
SIZES = ["10GB", "20KB", 300]


def tensors(folder):
    """Every tensor of a folder, as (shape, dtype, bytes), and in how many files they are."""
    files = list(folder.glob("*.safetensors"))
    arrays = {name: array for file in files for name, array in safetensors.numpy.load_file(file).items()}
    return {name: (array.shape, array.dtype, array.tobytes()) for name, array in arrays.items()}, len(files)


def build_theirs(**options):
    torch.manual_seed(0)
    return diffusers.UNet2DModel(**SMALL | options)


def build_ours(**options):
    return UNet2dModel(**SMALL | options, generator=np.random.default_rng(1))


@pytest.fixture
def strict():
    """diffusers' from_pretrained, which must neither miss a tensor nor find one too many."""

    def load(folder, **options):
        model, report = diffusers.UNet2DModel.from_pretrained(folder, output_loading_info=True, **options)
        assert not any(report.values()), report
        return model

    return load


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", CONFIGS)
def test_diffusers_hcrot_diffusers(tmp_path, strict, name, size):
    theirs = build_theirs(**CONFIGS[name])
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size=size)
    ours = UNet2dModel.from_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours", max_shard_size=size)
    first, number = tensors(tmp_path / "theirs")
    again, _ = tensors(tmp_path / "ours")
    assert first == again and (number == 1) == (size == "10GB")
    back = strict(tmp_path / "ours")
    for key, tensor in theirs.state_dict().items():
        assert torch.equal(tensor, back.state_dict()[key]), key
    assert json.loads((tmp_path / "ours" / "config.json").read_text()) == json.loads((tmp_path / "theirs" / "config.json").read_text())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", CONFIGS)
def test_hcrot_diffusers_hcrot(tmp_path, strict, name, size):
    ours = build_ours(**CONFIGS[name])
    ours.save_pretrained(tmp_path / "ours", max_shard_size=size)
    strict(tmp_path / "ours").save_pretrained(tmp_path / "theirs", max_shard_size=size)
    assert tensors(tmp_path / "ours")[0] == tensors(tmp_path / "theirs")[0]
    back = UNet2dModel.from_pretrained(tmp_path / "theirs")
    for key, array in ours.state_dict().items():
        assert array.tobytes() == back.state_dict()[key].tobytes(), key


def test_the_same_file_byte_for_byte(tmp_path):
    build_theirs().save_pretrained(tmp_path / "theirs")
    UNet2dModel.from_pretrained(tmp_path / "theirs").save_pretrained(tmp_path / "ours")
    name = "diffusion_pytorch_model.safetensors"
    assert (tmp_path / "theirs" / name).read_bytes() == (tmp_path / "ours" / name).read_bytes()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats(tmp_path, dtype):
    theirs = build_theirs().to(dtype)
    theirs.save_pretrained(tmp_path, max_shard_size="15KB")
    ours = UNet2dModel.from_pretrained(tmp_path).state_dict()
    for key, tensor in theirs.state_dict().items():
        assert ours[key].dtype == np.float32
        np.testing.assert_array_equal(ours[key], tensor.float().numpy(), err_msg=key)


@pytest.mark.parametrize("size", ["10GB", "15KB"])
def test_variants(tmp_path, size):
    theirs = build_theirs().half()
    theirs.save_pretrained(tmp_path, variant="fp16", max_shard_size=size)
    ours = UNet2dModel.from_pretrained(tmp_path, variant="fp16").state_dict()
    for key, tensor in theirs.state_dict().items():
        np.testing.assert_array_equal(ours[key], tensor.float().numpy(), err_msg=key)


def test_deprecated_names(tmp_path, strict):
    """Both read a file with the attention's old names, and mean the same by it."""
    theirs = build_theirs(layers_per_block=2)
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    arrays = safetensors.numpy.load_file(path)
    for new, old in {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}.items():
        arrays = {name.replace(f".{new}.", f".{old}."): array for name, array in arrays.items()}
    assert sum(".proj_attn." in name for name in arrays) == 12
    safetensors.numpy.save_file(arrays, path, metadata={"format": "pt"})
    ours = UNet2dModel.from_pretrained(tmp_path).state_dict()
    for key, tensor in strict(tmp_path).state_dict().items():
        np.testing.assert_array_equal(ours[key], tensor.numpy(), err_msg=key)


@pytest.mark.parametrize("size", SIZES)
def test_an_average_of_diffusers_and_back(tmp_path, strict, size):
    """``unet_ema/`` as EMAModel.save_pretrained writes it, with its own state among the network's arguments."""
    theirs = build_theirs(**CONFIGS["classes"])
    options = {"decay": 0.75, "use_ema_warmup": True, "inv_gamma": 2.0, "power": 0.5, "update_after_step": 1, "min_decay": 0.1}
    average = diffusers.training_utils.EMAModel(theirs.parameters(), **options, model_cls=diffusers.UNet2DModel, model_config=theirs.config)
    for _ in range(3):
        with torch.no_grad():
            for parameter in theirs.parameters():
                parameter += torch.randn_like(parameter)
        average.step(theirs.parameters())
    average.save_pretrained(tmp_path / "unet_ema")

    keys = ["decay", "inv_gamma", "min_decay", "optimization_step", "power", "update_after_step", "use_ema_warmup"]
    with pytest.warns(UserWarning, match=f"are ignored: {', '.join(map(repr, keys))}$") as caught:
        ours = UNet2dModel.from_pretrained(tmp_path, subfolder="unet_ema")
    assert len(caught) == 1 and ours.config["optimization_step"] == 3
    for key, shadow in zip(theirs.state_dict(), average.shadow_params, strict=True):
        assert ours.state_dict()[key].tobytes() == shadow.numpy().tobytes(), key

    ours.save_pretrained(tmp_path / "ours", max_shard_size=size)
    written, expected = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("ours", "unet_ema"))
    assert written == expected
    assert tensors(tmp_path / "ours")[0] == tensors(tmp_path / "unet_ema")[0]
    back = diffusers.training_utils.EMAModel.from_pretrained(tmp_path / "ours", diffusers.UNet2DModel)
    state, before = back.state_dict(), average.state_dict()
    assert all(torch.equal(a, b) for a, b in zip(state.pop("shadow_params"), before.pop("shadow_params"), strict=True))
    assert state == before


def test_unknown_keys_and_unchosen_arguments_as_in_diffusers(tmp_path, strict):
    """Keys that nobody knows come back from both; ``_use_default_values`` lists what takes its default in either."""
    config = SMALL | {"act_fn": "gelu", "norm_eps": 0.25, "of_the_future": [1, "a"], "_use_default_values": ["norm_eps"]}
    theirs = diffusers.UNet2DModel.from_config(config)
    with pytest.warns(UserWarning, match="'of_the_future'"):
        ours = UNet2dModel.from_config(config)
    assert ours.config == json.loads(json.dumps({name: value for name, value in theirs.config.items() if not name.startswith("_")}))
    ours.save_pretrained(tmp_path / "ours")
    again = strict(tmp_path / "ours")
    assert again.config["of_the_future"] == [1, "a"] and again.config["norm_eps"] == 1e-5


@pytest.mark.parametrize("kind", ["DDPMPipeline", "DDIMPipeline"])
def test_diffusers_opens_our_pipeline(tmp_path, kind):
    ours, scheduler = build_ours(), DDPMScheduler(num_train_timesteps=50, beta_schedule="squaredcos_cap_v2", steps_offset=1)
    pipelines.save(tmp_path / "p", ours, scheduler, max_shard_size="20KB")
    theirs = getattr(diffusers, kind).from_pretrained(tmp_path / "p")
    for key, tensor in theirs.unet.state_dict().items():
        assert tensor.numpy().tobytes() == ours.state_dict()[key].tobytes()
    shared = theirs.scheduler.config.keys() & scheduler.config.keys()
    assert len(shared) > 10 and all(theirs.scheduler.config[name] == scheduler.config[name] for name in shared)
    images = theirs(num_inference_steps=2, output_type="np").images
    assert images.shape == (1, 8, 8, 1) and np.isfinite(images).all()


def test_we_open_diffusers_pipeline(tmp_path):
    theirs = diffusers.DDPMPipeline(build_theirs(), diffusers.DDPMScheduler(num_train_timesteps=70, beta_schedule="sigmoid"))
    theirs.save_pretrained(tmp_path / "theirs")
    model, scheduler = pipelines.load(tmp_path / "theirs")
    for key, tensor in theirs.unet.state_dict().items():
        assert tensor.numpy().tobytes() == model.state_dict()[key].tobytes()
    assert type(scheduler) is DDPMScheduler and len(scheduler) == 70 and scheduler.config["beta_schedule"] == "sigmoid"
    pipelines.save(tmp_path / "ours", model, scheduler)
    for name in ("model_index.json", "unet/config.json", "scheduler/scheduler_config.json"):
        assert json.loads((tmp_path / "ours" / name).read_text()) == json.loads((tmp_path / "theirs" / name).read_text())
