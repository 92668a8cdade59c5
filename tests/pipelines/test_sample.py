"""Sampling in one call, against the loop written out; images that do not depend on their neighbours; pipelines' folders."""

import json
import os

import numpy as np
import pytest

import hcrot
from hcrot import pipelines
from hcrot.schedulers import DDPMScheduler
from support import small_unets


def tiny_model(**options):
    model = small_unets.tiny_model(in_channels=2, out_channels=2, **options)
    for parameter in model.parameters():
        parameter.data += 0.05 * np.random.default_rng(1).standard_normal(parameter.shape, np.float32)
    return model


def scheduler(**options):
    return DDPMScheduler(num_train_timesteps=40, beta_schedule="squaredcos_cap_v2", **options)


def generators(*seeds):
    return [np.random.default_rng(seed) for seed in seeds]


LABELS = np.array([2, 0, 1])
NO_STEP = ("NoiseScheduler", "ScoreSdeVeScheduler", "ScoreSdeVpScheduler")  # the latter have predictor and corrector in its place
SCHEDULERS = [name for name in hcrot.schedulers.__all__ if name.endswith("Scheduler") and name not in NO_STEP]


# ---------------------------------------------------------------- sampling


def test_the_loop_written_out():
    model, ours = tiny_model(), scheduler(clip_sample=False)
    images, steps = pipelines.ddpm(
        model, ours, class_labels=LABELS, num_inference_steps=6, generator=np.random.default_rng(5), progress=False, trajectory=True
    )
    theirs, rng = scheduler(clip_sample=False), np.random.default_rng(5)
    theirs.set_timesteps(6)
    expected = [rng.standard_normal((3, 2, 5, 6), dtype=np.float32)]
    with model.inference():
        for t in theirs.timesteps:
            expected.append(theirs.step(model(expected[-1], t, LABELS), t, expected[-1], generator=rng).prev_sample)
    assert steps.shape == (7, 3, 2, 5, 6) and steps.dtype == images.dtype == np.float32
    np.testing.assert_array_equal(steps, expected)
    assert np.abs(expected[-1]).max() > 1.01  # so that clipping shows
    np.testing.assert_array_equal(images, np.clip(expected[-1], -1, 1))
    assert model.training and not any(parameter.grad.any() for parameter in model.parameters())


def test_labels_matter_and_one_may_serve_all():
    model = tiny_model()

    def draw(labels, **options):
        return pipelines.sample(
            model, scheduler(), class_labels=labels, num_inference_steps=4, generator=np.random.default_rng(0), progress=False, **options
        )

    assert np.abs(draw(LABELS) - draw(LABELS[::-1]))[[0, 2]].max() > 1e-3
    np.testing.assert_array_equal(draw(1, batch_size=3), draw(np.array([1, 1, 1])))
    assert draw(1).shape == (1, 2, 5, 6)


def test_an_image_is_the_same_whatever_the_batch():
    model, seeds = tiny_model(), (3, 1, 4, 1_000_000, 5)
    labels = np.array([2, 0, 1, 1, 0])

    def draw(which, seeds=seeds):
        chosen = [seeds[k] for k in which]
        return pipelines.ddpm(
            model, scheduler(), class_labels=labels[which], num_inference_steps=8, generator=generators(*chosen), progress=False
        )

    everything = draw([0, 1, 2, 3, 4])
    assert min(np.abs(a - b).max() for k, a in enumerate(everything) for b in everything[:k]) > 0.1
    for which in ([0], [3], [4, 1], [2, 0, 3]):
        np.testing.assert_allclose(draw(which), everything[which], rtol=0, atol=2e-6)
    assert np.abs(draw([1], seeds=(9,) * 5) - everything[1]).max() > 0.1


@pytest.mark.parametrize("name", SCHEDULERS)
def test_one_loop_serves_every_scheduler(name):
    """Each starts from the configuration of the DDPM that the model was trained with, and keeps images apart."""
    model, kind = tiny_model(), getattr(hcrot.schedulers, name)

    def draw(labels, seeds):
        ours = kind.from_config(scheduler().config)
        return pipelines.sample(
            model, ours, class_labels=labels, num_inference_steps=5, generator=generators(*seeds), progress=False, trajectory=True
        )

    images, steps = draw(LABELS, (3, 1, 4))
    assert images.dtype == np.float32 and steps.shape[0] >= 6 and np.isfinite(steps).all()
    assert min(np.abs(a - b).max() for k, a in enumerate(images) for b in images[:k]) > 0.05
    alone, its_steps = draw(LABELS[1:2], (1,))
    np.testing.assert_allclose(its_steps, steps[:, 1:2], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(alone, images[1:2], rtol=0, atol=1e-5)


def test_names_settle_the_scheduler():
    model, options = tiny_model(), {"class_labels": LABELS, "num_inference_steps": 5, "progress": False}
    ours = scheduler()
    theirs = hcrot.schedulers.DDIMScheduler.from_config(ours.config)

    def draw(pipeline, which, **more):
        return pipeline(model, which, generator=np.random.default_rng(2), **options, **more)

    np.testing.assert_array_equal(draw(pipelines.ddpm, theirs), draw(pipelines.ddpm, ours))
    np.testing.assert_array_equal(draw(pipelines.ddim, ours, eta=0.5), draw(pipelines.ddim, theirs, eta=0.5))
    np.testing.assert_array_equal(draw(pipelines.ddim, ours), draw(pipelines.sample, theirs))
    assert np.abs(draw(pipelines.ddim, ours) - draw(pipelines.ddim, ours, eta=0.5)).max() > 0.01
    assert np.abs(draw(pipelines.ddim, ours) - draw(pipelines.ddpm, ours)).max() > 0.01


def test_one_generator_in_a_list_is_as_itself():
    model = tiny_model(num_class_embeds=None)
    alone = pipelines.sample(model, scheduler(), num_inference_steps=3, generator=np.random.default_rng(7), progress=False)
    listed = pipelines.sample(model, scheduler(), num_inference_steps=3, generator=generators(7), progress=False)
    np.testing.assert_array_equal(alone, listed)


def test_timesteps_as_they_are():
    model, options = tiny_model(num_class_embeds=None), {"progress": False, "trajectory": True}
    assert pipelines.ddpm(model, scheduler(), generator=np.random.default_rng(0), **options)[1].shape[0] == 41
    ours = scheduler()
    ours.set_timesteps(timesteps=[30, 7, 2])
    assert pipelines.ddpm(model, ours, generator=np.random.default_rng(0), **options)[1].shape[0] == 4


def test_float64():
    model = tiny_model(num_class_embeds=None).astype(np.float64)
    images = pipelines.sample(model, scheduler(), num_inference_steps=3, generator=np.random.default_rng(7), progress=False)
    assert images.dtype == np.float64


def test_square_images_and_the_bar(capsys):
    model = tiny_model(sample_size=4, num_class_embeds=None)
    for progress in (False, True):
        images = pipelines.sample(model, scheduler(), num_inference_steps=3, generator=generators(0, 1), progress=progress)
        assert images.shape == (2, 2, 4, 4)
        assert ("3/3" in capsys.readouterr().err) == progress


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"generator": 3.0}, TypeError, "^pipelines.sample: generator must be a numpy.random.Generator or an int .*, got 3.0$"),
        ({"generator": None}, TypeError, "generator must be a numpy.random.Generator or an int .*, got None"),
        ({"generator": -1}, ValueError, "generator must be .* an int of at least 0 .*, got -1"),
        ({"generator": []}, TypeError, r"generator is \[\], expected .*, or a list with one for each image"),
        ({"generator": "012"}, TypeError, "generator is '012', expected .*, or a list with one for each image"),
        ({"generator": [1, 2.0, 3]}, TypeError, "image 1: generator must be a numpy.random.Generator or an int .*, got 2.0"),
        ({"batch_size": True, "class_labels": 1}, ValueError, "got batch_size of True"),
        ({"generator": [np.random.default_rng(0)] * 3}, ValueError, "has one of them twice"),
        ({"generator": generators(1, 2)}, ValueError, "number of images, .* got class_labels of 3, generator of 2"),
        ({"batch_size": 4}, ValueError, "got batch_size of 4, class_labels of 3"),
        ({"batch_size": 0, "class_labels": 1}, ValueError, "at least 1, got batch_size of 0"),
        ({"batch_size": 2.0, "class_labels": 1}, ValueError, "got batch_size of 2.0"),
        ({"class_labels": np.array([], int)}, ValueError, "got class_labels of 0"),
        ({"class_labels": None}, ValueError, "class_labels missing"),
        ({"class_labels": np.array([0, 3, 1])}, ValueError, "index 3 is not from 0 to 2"),
        ({"num_inference_steps": 41}, ValueError, "num_inference_steps 41 is more than the 40"),
    ],
)
def test_bad_arguments(options, error, message):
    options = {"generator": np.random.default_rng(0), "class_labels": LABELS, "progress": False} | options
    with pytest.raises(error, match=message):
        pipelines.sample(tiny_model(), scheduler(), **options)


def test_integers_of_numpy():
    def draw(kind, sample_size):
        model = tiny_model(sample_size=sample_size)
        options = {"batch_size": kind(3), "num_inference_steps": kind(4), "class_labels": kind(1)}
        return pipelines.ddim(model, scheduler(), generator=kind(0), progress=False, **options)

    for kind in (np.int64, np.uint8):
        np.testing.assert_array_equal(draw(kind, kind(5)), draw(int, 5))
        np.testing.assert_array_equal(draw(kind, (kind(5), kind(6))), draw(int, (5, 6)))


def test_a_list_of_seeds():
    def draw(generator):
        return pipelines.sample(
            tiny_model(), scheduler(), class_labels=LABELS, num_inference_steps=4, generator=generator, progress=False
        )

    expected = draw(generators(3, 0, 3))
    np.testing.assert_array_equal(draw([3, np.int64(0), 3]), expected)
    np.testing.assert_array_equal(draw((np.random.default_rng(3), 0, 3)), expected)
    np.testing.assert_array_equal(draw(range(3)), draw(generators(0, 1, 2)))


class NoModel:
    """Nothing of it may be asked for before the options are known to be right."""


@pytest.mark.parametrize(
    ("function", "kind", "options", "message"),
    [
        ("sample", "DDIM", {"etta": 0.5}, "'etta'; DDIMScheduler.step takes eta, use_clipped_model_output; did you mean 'eta'?"),
        ("ddim", "DDIM", {"etta": 0.5}, "'etta'; DDIMScheduler.step takes eta, use_clipped_model_output; did you mean 'eta'?"),
        ("ddim", "DDPM", {"colour": 1}, "'colour'; DDIMScheduler.step takes eta, use_clipped_model_output"),
        ("ddpm", "DDIM", {"eta": 0.5}, "'eta'; DDPMScheduler.step takes no options"),
        ("sample", "EulerDiscrete", {"churn": 1}, "'churn'; EulerDiscreteScheduler.step takes s_churn, s_tmin, s_tmax, s_noise; "
         "did you mean 's_churn'?"),
        ("sample", "PNDM", {"class_label": 1}, "'class_label'; PNDMScheduler.step takes no options; did you mean 'class_labels'?"),
        ("ddpm", "DDPM", {"inference_steps": 1}, "'inference_steps'; DDPMScheduler.step takes no options; "
         "did you mean 'num_inference_steps'?"),
        ("ddim", "DDIM", {"num_inference_step": 1}, "'num_inference_step'; DDIMScheduler.step takes eta, use_clipped_model_output; "
         "did you mean 'num_inference_steps'?"),
        ("sample", "DDPM", {"noise": 1}, "'noise'; DDPMScheduler.step takes no options"),
        ("sample", "DDPM", {"return_dict": False}, "'return_dict'; DDPMScheduler.step takes no options"),
    ],
)  # fmt: skip
def test_unknown_options_are_named_before_any_work(function, kind, options, message):
    ours = getattr(hcrot.schedulers, f"{kind}Scheduler")()
    with pytest.raises(TypeError) as caught:
        getattr(pipelines, function)(NoModel(), ours, generator=0, **options)
    assert str(caught.value) == f"pipelines.{function}: unknown option {message}"
    assert ours.num_inference_steps is None


def test_a_scheduler_that_takes_any_option_gets_it():
    class Recording(DDPMScheduler):
        def step(self, *arguments, generator, **options):
            self.options = options
            return super().step(*arguments, generator=generator)

    ours = Recording.from_config(scheduler().config)
    pipelines.sample(tiny_model(), ours, generator=0, class_labels=1, num_inference_steps=2, progress=False, strength=3)
    assert ours.options == {"strength": 3}


def test_a_model_without_a_size():
    with pytest.raises(ValueError, match=r"sample_size None, expected an int or \(height, width\)"):
        pipelines.sample(tiny_model(sample_size=None), scheduler(), generator=np.random.default_rng(0))


# ---------------------------------------------------------------- folders


def test_a_folder_and_back(tmp_path):
    model, ours = tiny_model(), scheduler(variance_type="fixed_large")
    for size in (10_000, "10GB"):  # the second takes the place of the first
        pipelines.save(tmp_path / "p", model, ours, max_shard_size=size)
        assert os.listdir(tmp_path) == ["p"]
        loaded, its_scheduler = pipelines.load(tmp_path / "p")
        assert loaded.config == model.config
        assert type(its_scheduler) is DDPMScheduler and its_scheduler.config == ours.config
        np.testing.assert_array_equal(loaded.conv_in.weight.data, model.conv_in.weight.data)
    files = sorted(path.relative_to(tmp_path / "p").as_posix() for path in (tmp_path / "p").rglob("*") if path.is_file())
    weights = "unet/diffusion_pytorch_model.safetensors"
    of_one = ["model_index.json", "scheduler/scheduler_config.json", "unet/config.json", weights]
    assert files == sorted([*of_one, "pipeline.py"])
    index = {
        "_class_name": ["pipeline", "HcrotPipeline"],
        "_diffusers_version": "0.42.1",
        "scheduler": ["diffusers", "DDPMScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
        "id2label": {},
        "null_label": None,
    }
    assert json.loads((tmp_path / "p" / "model_index.json").read_text()) == index
    pipelines.save(tmp_path / "p", tiny_model(num_class_embeds=None), ours)  # what diffusers' own pipeline draws needs no program
    assert json.loads((tmp_path / "p" / "model_index.json").read_text()) == {
        name: index[name] for name in ("_diffusers_version", "scheduler", "unet")
    } | {"_class_name": "DDPMPipeline"}
    assert not (tmp_path / "p" / "pipeline.py").exists()


def test_all_in_one_folder_as_the_first_published_ones(tmp_path):
    pipelines.save(tmp_path / "p", tiny_model(), scheduler())
    for path in [*(tmp_path / "p" / "unet").iterdir(), *(tmp_path / "p" / "scheduler").iterdir()]:
        path.rename(tmp_path / "p" / path.name)
    for name in ("unet", "scheduler"):
        (tmp_path / "p" / name).rmdir()
    model, its_scheduler = pipelines.load(tmp_path / "p")
    np.testing.assert_array_equal(model.conv_in.weight.data, tiny_model().conv_in.weight.data)
    assert its_scheduler.config == scheduler().config


@pytest.mark.parametrize("kind", ["DDPMScheduler", "DDIMScheduler"])
def test_a_checkpoint_is_a_pipeline(tmp_path, kind):
    model, ours = tiny_model(), getattr(hcrot, kind)(num_train_timesteps=40, timestep_spacing="trailing")
    optimizer = hcrot.AdamW(model.parameters(), lr=1e-3)
    hcrot.save_checkpoint(tmp_path / "c", model, ours, state={"optimizer": optimizer})
    loaded, its_scheduler = pipelines.load(tmp_path / "c")
    assert loaded.config == model.config and type(its_scheduler) is type(ours) and its_scheduler.config == ours.config
    np.testing.assert_array_equal(loaded.conv_in.weight.data, model.conv_in.weight.data)


def test_folders_that_are_no_pipeline_say_what_they_are(tmp_path):
    model = tiny_model()
    hcrot.save_checkpoint(tmp_path / "c", model)
    with pytest.raises(FileNotFoundError, match=r"scheduler_config.json; there is a network alone: UNet2dModel.from_pretrained\('.*c'\)$"):
        pipelines.load(tmp_path / "c")
    model.save_pretrained(tmp_path / "checkpoint-500" / "unet")
    with pytest.raises(FileNotFoundError, match=r"model_index.json; there is a network alone: .*checkpoint-500', subfolder='unet'\)"):
        pipelines.load(tmp_path / "checkpoint-500")
    with pytest.raises(FileNotFoundError, match=r"model_index.json; there is a network alone: .*, subfolder='c'\)"):
        pipelines.load(tmp_path)
    pipelines.save(tmp_path / "run" / "p", model, scheduler())
    with pytest.raises(FileNotFoundError, match=r"model_index.json; pipelines are in its subfolders p$"):
        pipelines.load(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"model_index.json; .*empty holds nothing$"):
        pipelines.load(tmp_path / "empty")


def test_a_variant_of_the_weights(tmp_path):
    pipelines.save(tmp_path, tiny_model(), scheduler())
    path = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    path.rename(path.with_name("diffusion_pytorch_model.fp16.safetensors"))
    with pytest.raises(FileNotFoundError, match="say variant='fp16'"):
        pipelines.load(tmp_path)
    loaded, _ = pipelines.load(tmp_path, variant="fp16")
    np.testing.assert_array_equal(loaded.conv_in.weight.data, tiny_model().conv_in.weight.data)


def rewrite(name, **changes):
    def damage(folder):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage


INDEX, CONFIG = "model_index.json", "scheduler/scheduler_config.json"


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda f: (f / INDEX).unlink(), FileNotFoundError, "there is no file .*model_index.json"),
        (lambda f: (f / INDEX).write_text("{"), ValueError, "model_index.json is damaged or no JSON"),
        (rewrite(INDEX, scheduler=None), ValueError, "model_index.json says of scheduler None, expected a library and a class"),
        (rewrite(INDEX, unet=["diffusers", 3]), ValueError, "model_index.json says of unet"),
        (rewrite(INDEX, unet=["diffusers", "UNet1DModel"]), NotImplementedError, "model_index.json asks for UNet1DModel with"),
        (rewrite(INDEX, scheduler=["diffusers", "KarrasVeScheduler"]), NotImplementedError, "asks for UNet2DModel with KarrasVeScheduler"),
        (rewrite(INDEX, scheduler=["diffusers", "np"]), NotImplementedError, "asks for UNet2DModel with np"),
        (rewrite(CONFIG, beta_start=-1), ValueError, "scheduler_config.json: .*beta_start"),
        (rewrite(CONFIG, num_train_timesteps="x"), ValueError, "scheduler_config.json: .*num_train_timesteps"),
        (lambda f: (f / CONFIG).unlink(), FileNotFoundError, "scheduler_config.json"),
        (lambda f: (f / "unet" / "config.json").unlink(), FileNotFoundError, "unet.config.json"),
        (lambda f: (f / "unet" / "config.json").write_text("[]"), ValueError, "unet.config.json holds no JSON object"),
    ],
)
def test_damaged_folders(tmp_path, damage, error, message):
    pipelines.save(tmp_path, tiny_model(), scheduler())
    damage(tmp_path)
    with pytest.raises(error, match=message):
        pipelines.load(tmp_path)


def test_unknown_parts_of_a_pipeline_are_named(tmp_path):
    pipelines.save(tmp_path, tiny_model(), scheduler())
    rewrite(INDEX, vqvae=["diffusers", "VQModel"], requires_safety_checker=False, _name_or_path="here")(tmp_path)
    with pytest.warns(UserWarning, match="pipelines.load: .* are ignored: 'requires_safety_checker', 'vqvae'$") as caught:
        pipelines.load(tmp_path)
    assert len(caught) == 1 and caught[0].filename == __file__


def test_other_peoples_files_are_safe(tmp_path):
    pipelines.save(tmp_path / "p", tiny_model(), scheduler())
    (tmp_path / "p" / "scheduler" / "notes.txt").write_text("years")
    with pytest.raises(FileExistsError, match="pipelines.save: .* holds scheduler/notes.txt, which would be lost"):
        pipelines.save(tmp_path / "p", tiny_model(), scheduler())
    with pytest.raises(ValueError, match="max_shard_size"):
        pipelines.save(tmp_path / "q", tiny_model(), scheduler(), max_shard_size="big")
    assert os.listdir(tmp_path) == ["p"]


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="pipelines.load: there is no folder"):
        pipelines.load(tmp_path / "nowhere")


def test_arguments_in_the_wrong_place_are_named(tmp_path):
    model, noise, optimizer = tiny_model(), scheduler(), hcrot.AdamW(tiny_model().parameters())
    for call, message in (
        (lambda: pipelines.sample(noise, model, generator=0), "pipelines.sample: scheduler is a UNet2dModel, expected a noise scheduler"),
        (lambda: pipelines.ddpm(model, noise, num_inference_steps=2), "pipelines.ddpm: generator is missing"),
        (lambda: pipelines.save(tmp_path / "p", noise, model), "pipelines.save: model is a DDPMScheduler, expected a Module"),
        (lambda: pipelines.save(tmp_path / "p", model, optimizer), "pipelines.save: scheduler is a AdamW, expected a noise scheduler"),
        (lambda: hcrot.save_checkpoint(tmp_path / "c", model, optimizer), "save_checkpoint: scheduler is a AdamW"),
        (lambda: hcrot.save_checkpoint(tmp_path / "c", noise), "save_checkpoint: model is a DDPMScheduler, expected a Module"),
        (lambda: hcrot.save_model(noise, tmp_path / "m"), "save_model: model is a DDPMScheduler, expected a Module"),
        (lambda: hcrot.load_model(tmp_path, noise), "load_model: model is a DDPMScheduler, expected a Module"),
        (lambda: pipelines.load(tmp_path, model=noise), "pipelines.load: model is a DDPMScheduler, expected a Module"),
        (lambda: DDPMScheduler.from_config(noise), "from_config: config is a DDPMScheduler, .*its arguments are DDPMScheduler.config"),
    ):
        with pytest.raises(TypeError, match=message):
            call()
    assert os.listdir(tmp_path) == []
