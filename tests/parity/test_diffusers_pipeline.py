"""What hcrot saves with classes, with two networks, or for any sampler: diffusers opens it and draws what hcrot draws."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

import hcrot  # noqa: E402
from hcrot import pipelines  # noqa: E402
from hcrot.pipelines.cascade import cascade  # noqa: E402
from hcrot.pipelines.folder import classes_of  # noqa: E402
from hcrot.samplers import sampler_of  # noqa: E402
from support.small_unets import SMALL, make  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread", "one_kernel_thread")

CLASSES = ("daisy", "rose")
SCHEDULE = {"num_train_timesteps": 100, "beta_schedule": "squaredcos_cap_v2"}


def network(**options):
    model = make(SMALL, **options).eval()
    rng = np.random.default_rng(5)
    for parameter in model.parameters():  # what a new network says does not depend on its class
        parameter.data = parameter.data + 0.03 * rng.standard_normal(parameter.shape, dtype=np.float32)
    return model


@pytest.fixture
def opened(monkeypatch, tmp_path):
    """Open a folder as a user of diffusers does, who then hands generators of NumPy to the pipeline, so that the noise is hcrot's."""
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))

    def draw(shape, generator=None, *device_and_dtype, **options):
        several = generator if isinstance(generator, list) else None
        drawn = np.stack([one.standard_normal(shape[1:], dtype=np.float32) for one in several]) if several else (
            generator.standard_normal(tuple(shape), dtype=np.float32))  # fmt: skip
        return torch.from_numpy(drawn)

    def open_folder(folder, **options):
        pipe = diffusers.DiffusionPipeline.from_pretrained(folder, trust_remote_code=True, **options)
        pipe.set_progress_bar_config(disable=True)
        for place in (type(pipe).__call__.__wrapped__, type(pipe.scheduler).step):
            if "randn_tensor" in place.__globals__:
                monkeypatch.setitem(place.__globals__, "randn_tensor", draw)
        return pipe

    return open_folder


def generators(listed=False):
    return [np.random.default_rng(seed) for seed in (3, 1, 4)] if listed else np.random.default_rng(3)


def ddim(**options):
    return hcrot.DDIMScheduler(**SCHEDULE | options)


def compare(images, pictures):
    assert images.std() > 0.2
    np.testing.assert_allclose(images / 2 + 0.5, pictures.numpy(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("listed", [False, True])
def test_classes_and_guidance(opened, tmp_path, listed):
    pipelines.save(tmp_path / "p", network(num_class_embeds=3), ddim(), classes=CLASSES, null_label=2)
    pipe, (model, scheduler) = opened(tmp_path / "p"), pipelines.load(tmp_path / "p")
    assert pipelines.load_small(tmp_path / "p") is None
    how = {"num_inference_steps": 4, "eta": 0.0, "use_clipped_model_output": True}
    told = {"class_labels": np.array([1, 0, 1]), "null_label": 2, "progress": False}
    ours = [pipelines.sample(model, scheduler, generator=generators(listed), guidance_scale=w, **told, **how) for w in (1, 1.5)]
    for labels in ([1, 0, 1], ["rose", "daisy", "rose"], torch.tensor([1, 0, 1])):
        compare(ours[1], pipe(labels, guidance_scale=1.5, generator=generators(listed), output_type="pt", **how).images)
    compare(ours[0], pipe([1, 0, 1], generator=generators(listed), output_type="pt", **how).images)
    assert abs(ours[0] - ours[1]).max() > 0.01


def test_what_it_returns_and_refuses(opened, tmp_path):
    pipelines.save(tmp_path / "p", network(num_class_embeds=3, in_channels=3, out_channels=3), ddim(), classes=CLASSES, null_label=2)
    pipe = opened(tmp_path / "p")
    how = {"num_inference_steps": 2, "generator": np.random.default_rng(0)}
    [picture] = pipe("rose", **how).images
    assert picture.size == (8, 8) and picture.mode == "RGB"
    assert pipe(1, batch_size=2, output_type="np", **how).images.shape == (2, 8, 8, 3)
    assert len(pipe(batch_size=2, return_dict=False, **how)[0]) == 2  # of any class
    with pytest.raises(ValueError, match="there is no class 'tulip'; expected daisy, rose"):
        pipe(["rose", "tulip"], **how)
    pipe.save_pretrained(tmp_path / "again")  # as diffusers saves it, without the program
    again = opened(tmp_path / "again", custom_pipeline=str(tmp_path / "p"))
    assert again.labels == {"daisy": 0, "rose": 1} and again.config.null_label == 2
    pipelines.save(tmp_path / "q", network(num_class_embeds=3), ddim())
    pipe = opened(tmp_path / "q")
    with pytest.raises(ValueError, match="class_labels: expected names or numbers of classes; the names are not known"):
        pipe(**how)
    with pytest.raises(ValueError, match="guidance_scale: these networks were not trained for it"):
        pipe([1], guidance_scale=2, **how)
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        diffusers.DiffusionPipeline.from_pretrained(tmp_path / "q")


def test_two_networks(opened, tmp_path):
    small = network(num_class_embeds=3), ddim(prediction_type="v_prediction")
    large = network(num_class_embeds=3, sample_size=(16, 24), in_channels=2), ddim(prediction_type="sample")
    pipelines.save(tmp_path / "p", *large, small=small, classes=CLASSES, null_label=2)
    pipe, how = opened(tmp_path / "p"), {"num_inference_steps": 3, "guidance_scale": 1.5}
    assert classes_of(tmp_path / "p") == (list(CLASSES), 2)
    for listed in (False, True):
        ours = cascade(
            pipelines.load_small(tmp_path / "p"), pipelines.load(tmp_path / "p"), class_labels=np.array([1, 0, 1]), num_inference_steps=3,
            guided={"guidance_scale": 1.5, "null_label": 2}, generator=generators(listed), progress=False,
        )  # fmt: skip
        compare(ours, pipe([1, 0, 1], generator=generators(listed), output_type="pt", **how).images)


@pytest.mark.parametrize("name", ["ddpm", "sde-dpmsolver++", "pndm", "unipc", "euler-a", "heun"])
def test_a_sampler_without_classes(opened, tmp_path, name):
    """Some by diffusers' own pipelines, some by ours."""
    pipelines.save(tmp_path / "p", network(), sampler_of(name, ddim(prediction_type="v_prediction")))
    how = {"batch_size": 2, "num_inference_steps": 4, "generator": np.random.default_rng(0)}
    pictures = opened(tmp_path / "p")(output_type="pt", **how).images
    compare(pipelines.sample(*pipelines.load(tmp_path / "p"), progress=False, **how | {"generator": np.random.default_rng(0)}), pictures)
