"""Configurations of schedulers: what the constructor refuses, and the file there and back."""

import inspect
import json
import warnings

import numpy as np
import pytest

import hcrot.schedulers
from hcrot.schedulers import DDIMInverseScheduler, DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, PNDMScheduler

DEFAULTS = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "variance_type": "fixed_small",
    "clip_sample": True,
    "prediction_type": "epsilon",
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "clip_sample_range": 1.0,
    "sample_max_value": 1.0,
    "timestep_spacing": "leading",
    "steps_offset": 0,
    "rescale_betas_zero_snr": False,
}
CHOSEN = {
    "num_train_timesteps": 4,
    "beta_start": 0.01,
    "beta_end": 0.2,
    "beta_schedule": "sigmoid",
    "trained_betas": [0.1, 0.2, 0.3, 0.4],
    "variance_type": "fixed_large",
    "clip_sample": False,
    "prediction_type": "v_prediction",
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.9,
    "clip_sample_range": 2.0,
    "sample_max_value": 3.0,
    "timestep_spacing": "trailing",
    "steps_offset": 1,
    "rescale_betas_zero_snr": False,
}


def test_config_holds_all_arguments_in_diffusers_order():
    assert list(DDPMScheduler().config.items()) == list(DEFAULTS.items())
    assert DDPMScheduler(**CHOSEN).config == CHOSEN
    assert DDPMScheduler(*CHOSEN.values()).config == CHOSEN


def test_config_goes_to_a_file_and_back(tmp_path):
    scheduler = DDPMScheduler(**CHOSEN)
    folder = tmp_path / "new" / "folder"
    scheduler.save_pretrained(folder)
    scheduler.save_pretrained(str(folder))  # over itself
    assert [path.name for path in folder.iterdir()] == ["scheduler_config.json"]
    text = (folder / "scheduler_config.json").read_text()
    names = {"_class_name": "DDPMScheduler", "_diffusers_version": "0.42.1"}
    assert text == json.dumps({**CHOSEN, **names}, indent=2, sort_keys=True) + "\n"
    loaded = DDPMScheduler.from_pretrained(str(folder))
    assert loaded.config == CHOSEN
    np.testing.assert_array_equal(loaded.alphas_cumprod, scheduler.alphas_cumprod)


def test_config_of_numpy_scalars_can_be_saved(tmp_path):
    scheduler = DDPMScheduler(
        np.int64(10),
        np.float32(0.5),
        clip_sample=np.bool_(False),
        steps_offset=np.int32(1),
        trained_betas=np.full(10, 0.1),
    )
    scheduler.save_pretrained(tmp_path)
    assert DDPMScheduler.from_pretrained(tmp_path).config == scheduler.config


def test_failed_save_leaves_the_previous_file(tmp_path, monkeypatch):
    scheduler = DDPMScheduler()
    scheduler.save_pretrained(tmp_path)

    def fail(*_):
        raise OSError("killed before the file was moved into place")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="killed"):
        DDPMScheduler(**CHOSEN).save_pretrained(tmp_path)
    assert DDPMScheduler.from_pretrained(tmp_path).config == scheduler.config


def test_missing_keys_are_defaults_and_private_keys_are_dropped():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheduler = DDPMScheduler.from_config({"_class_name": "DDIMScheduler", "_extra": 1, "beta_end": 0.01})
    assert scheduler.config == {**DEFAULTS, "beta_end": 0.01}


def test_unknown_keys_are_ignored_with_a_warning_and_kept(tmp_path):
    with pytest.warns(UserWarning, match=r"DDPMScheduler.from_config: unknown configuration keys .*: 'shift_of_shifts'$"):
        scheduler = DDPMScheduler.from_config({"shift_of_shifts": 3, "steps_offset": 1})
    assert scheduler.config == {**DEFAULTS, "steps_offset": 1, "shift_of_shifts": 3}
    scheduler.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "scheduler_config.json").read_text())["shift_of_shifts"] == 3


def test_arguments_that_nobody_chose_take_the_next_schedulers_default():
    ddim = DDIMScheduler(steps_offset=1, clip_sample=True)
    pndm = PNDMScheduler.from_config(ddim.config)
    assert ddim.config["set_alpha_to_one"] is True and pndm.config["set_alpha_to_one"] is False
    assert pndm.config["steps_offset"] == 1
    assert DDIMScheduler.from_config(pndm.config).config == ddim.config  # clip_sample was kept on the way
    assert PNDMScheduler.from_config({**ddim.config}).config["set_alpha_to_one"] is True  # as after a file: all are chosen


def test_a_file_may_list_what_nobody_chose(tmp_path):
    listed = {**DDIMScheduler(steps_offset=1).config, "_use_default_values": ["set_alpha_to_one"]}
    (tmp_path / "scheduler_config.json").write_text(json.dumps(listed))
    scheduler = PNDMScheduler.from_pretrained(tmp_path)
    assert scheduler.config["set_alpha_to_one"] is False and scheduler.config["steps_offset"] == 1


@pytest.mark.parametrize("listed", [3, "set_alpha_to_one", [3], None])
def test_what_nobody_chose_is_a_list_of_names(listed):
    with pytest.raises(ValueError, match="PNDMScheduler.from_config: _use_default_values is .*, expected a list of names"):
        PNDMScheduler.from_config({"_use_default_values": listed})


def test_the_warning_stands_at_the_line_of_the_caller(tmp_path):
    (tmp_path / "scheduler_config.json").write_text('{"of_the_future": 1}')
    for load in (lambda: DDPMScheduler.from_pretrained(tmp_path), lambda: DDPMScheduler.from_config({"of_the_future": 1})):
        with pytest.warns(UserWarning, match="'of_the_future'$") as caught:
            load()
        assert len(caught) == 1 and caught[0].filename == __file__


def test_arguments_of_other_schedulers_are_kept_without_effect():
    ddpm = DDPMScheduler(
        rescale_betas_zero_snr=True, thresholding=True, variance_type="learned_range", prediction_type="v_prediction"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pndm = PNDMScheduler.from_config(ddpm.config)
        inverse = DDIMInverseScheduler.from_config(pndm.config)
        again = DDPMScheduler.from_config(inverse.config)
    assert pndm.config["rescale_betas_zero_snr"] and pndm.alphas_cumprod[-1] > 0
    assert inverse.alphas_cumprod[-1] == 0
    inverse.set_timesteps(10)
    x0 = inverse.step(np.full((1, 9), -9.0), 900, np.zeros((1, 9))).pred_original_sample
    assert np.all(x0 == 1)  # thresholded: |x_0| is 9 nearly everywhere, 9/9
    assert {name: again.config[name] for name in ddpm.config} == ddpm.config


def test_the_configuration_of_a_trained_model_serves_any_scheduler(tmp_path):
    trained = DDPMScheduler(num_train_timesteps=400, beta_schedule="laplace", prediction_type="sample")
    trained.save_pretrained(tmp_path)
    for other in (DDIMScheduler, DDIMInverseScheduler, PNDMScheduler):
        scheduler = other.from_pretrained(tmp_path)
        np.testing.assert_array_equal(scheduler.alphas_cumprod, trained.alphas_cumprod)
        assert scheduler.config["prediction_type"] == "sample"


def test_a_configuration_without_a_variance_type_serves_ddpm(tmp_path):
    """DPM-Solver's files say variance_type: null."""
    DPMSolverMultistepScheduler(num_train_timesteps=400, prediction_type="sample").save_pretrained(tmp_path)
    assert json.loads((tmp_path / "scheduler_config.json").read_text())["variance_type"] is None
    scheduler = DDPMScheduler.from_pretrained(tmp_path)
    assert scheduler.config["variance_type"] is None and len(scheduler) == 400
    scheduler.save_pretrained(tmp_path)
    assert DPMSolverMultistepScheduler.from_pretrained(tmp_path).config["variance_type"] is None


@pytest.mark.parametrize("config", ["folder", None, DDIMScheduler()])
def test_a_configuration_is_a_mapping(config):
    with pytest.raises(TypeError, match=f"DDPMScheduler.from_config: config is a {type(config).__name__}, expected arguments by name"):
        DDPMScheduler.from_config(config)


def test_the_scheduler_of_a_pipeline_is_found(tmp_path):
    first, second = DDPMScheduler(num_train_timesteps=50), DDPMScheduler(num_train_timesteps=60)
    first.save_pretrained(tmp_path / "scheduler")
    second.save_pretrained(tmp_path / "other" / "place")
    with pytest.raises(FileNotFoundError, match=r"scheduler_config.json; say subfolder='other/place' or 'scheduler'$"):
        DDIMScheduler.from_pretrained(tmp_path)
    (tmp_path / "model_index.json").write_text("{}")
    assert len(DDIMScheduler.from_pretrained(tmp_path)) == 50
    assert len(DDIMScheduler.from_pretrained(tmp_path, subfolder="scheduler")) == 50
    assert len(DDIMScheduler.from_pretrained(tmp_path, subfolder="other/place")) == 60
    assert DDIMScheduler.from_pretrained(tmp_path, timestep_spacing="trailing").config["timestep_spacing"] == "trailing"
    second.save_pretrained(tmp_path)
    assert len(DDIMScheduler.from_pretrained(tmp_path)) == 50  # its own place comes first
    (tmp_path / "scheduler" / "scheduler_config.json").unlink()
    (tmp_path / "scheduler").rmdir()
    assert len(DDIMScheduler.from_pretrained(tmp_path)) == 60  # all in one folder, as in the first published pipelines
    with pytest.raises(FileNotFoundError, match=r"no file .*nowhere.scheduler_config.json; say subfolder='other/place'$"):
        DDIMScheduler.from_pretrained(tmp_path, subfolder="nowhere")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="scheduler_config.json"):
        DDPMScheduler.from_pretrained(tmp_path)


@pytest.mark.parametrize("content", [b"", b'{"beta_end": 0.0', b"[1, 2]", b'"text"', b"\xff\xfe\x00\x01"])
def test_corrupt_file_is_named(tmp_path, content):
    (tmp_path / "scheduler_config.json").write_bytes(content)
    with pytest.raises(ValueError, match="scheduler_config.json"):
        DDPMScheduler.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"beta_schedule": "sigmiod"}, ValueError, "beta_schedule 'sigmiod' .* linear, scaled_linear, square"),
        ({"beta_schedule": None}, ValueError, "beta_schedule None"),
        ({"variance_type": "small"}, ValueError, "variance_type 'small' .* fixed_small, fixed_small_log, fixed_"),
        ({"prediction_type": "noise"}, ValueError, "prediction_type 'noise' .* epsilon, sample, v_prediction"),
        ({"timestep_spacing": "even"}, ValueError, "timestep_spacing 'even' .* linspace, leading, trailing"),
        ({"num_train_timesteps": 0}, ValueError, "num_train_timesteps is 0"),
        ({"num_train_timesteps": 10.0}, TypeError, "num_train_timesteps is 10.0"),
        ({"num_train_timesteps": True}, TypeError, "num_train_timesteps is True"),
        ({"num_train_timesteps": 20000}, ValueError, "alphas_cumprod underflows"),
        ({"beta_start": -0.1, "beta_schedule": "scaled_linear"}, ValueError, "beta_start is -0.1"),
        ({"beta_start": float("nan")}, ValueError, "beta_start is nan"),
        ({"beta_start": 1e-9}, ValueError, "betas range from 1e-09"),
        ({"beta_end": "0.02"}, TypeError, "beta_end is '0.02'"),
        ({"beta_end": 1.0}, ValueError, "betas range from 0.0001 to 1,"),
        ({"trained_betas": [0.1, 0.2]}, ValueError, r"trained_betas has shape \(2,\)"),
        ({"trained_betas": ["a"], "num_train_timesteps": 1}, ValueError, "trained_betas has .* dtype <U1"),
        ({"trained_betas": [0.1, 1.5], "num_train_timesteps": 2}, ValueError, "betas range from 0.1 to 1.5"),
        ({"trained_betas": [0.1, np.nan], "num_train_timesteps": 2}, ValueError, "betas range from nan to nan"),
        ({"clip_sample": "no"}, TypeError, "clip_sample is 'no'"),
        ({"clip_sample_range": 0.0}, ValueError, "clip_sample_range is 0.0"),
        ({"steps_offset": -1}, ValueError, "steps_offset is -1"),
        ({"thresholding": 1}, TypeError, "thresholding is 1"),
        ({"dynamic_thresholding_ratio": 1.5}, ValueError, "dynamic_thresholding_ratio is 1.5, expected at most 1"),
        ({"rescale_betas_zero_snr": True, "num_train_timesteps": 1}, ValueError, "rescale_betas_zero_snr needs"),
        ({"set_alpha_to_one": True}, TypeError, "got an unexpected keyword argument 'set_alpha_to_one'"),
    ],
)
def test_bad_constructor_arguments(arguments, error, message):
    with pytest.raises(error, match="DDPMScheduler: " + message):
        DDPMScheduler(**arguments)


SCHEDULERS = [
    getattr(hcrot.schedulers, name) for name in hcrot.schedulers.__all__ if name.endswith("Scheduler") and name != "NoiseScheduler"
]


@pytest.mark.parametrize("kind", SCHEDULERS, ids=lambda kind: kind.__name__)
def test_integers_of_numpy_are_as_pythons(tmp_path, kind):
    defaults = {name: parameter.default for name, parameter in inspect.signature(kind).parameters.items()}
    options = {name: value for name, value in defaults.items() if type(value) is int} | {"num_train_timesteps": 200}
    scheduler, same = kind(**{name: (np.uint8 if value < 256 else np.int32)(value) for name, value in options.items()}), kind(**options)
    assert scheduler.config == same.config
    assert {type(scheduler.config[name]) for name in options} == {int}
    scheduler.save_pretrained(tmp_path)
    assert kind.from_pretrained(tmp_path).config == same.config
    scheduler.set_timesteps(np.uint8(5))
    same.set_timesteps(5)
    np.testing.assert_array_equal(scheduler.timesteps, same.timesteps)
    assert type(scheduler.num_inference_steps) is int
    with pytest.raises(TypeError, match="num_inference_steps is True"):
        scheduler.set_timesteps(True)


@pytest.mark.parametrize("kind", [kind for kind in SCHEDULERS if not hasattr(kind, "step_pred")], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("seed", [0, np.int64(7)], ids=["int", "int64"])
def test_a_step_refuses_a_seed(kind, seed):
    """It would draw the same noise at every step, which no error would ever show."""
    scheduler, x = kind(), np.zeros((1, 1, 2, 2))
    scheduler.set_timesteps(5)
    with pytest.raises(TypeError, match=rf"step: generator is the int {seed}, .* np.random.default_rng\({seed}\) once, before the loop"):
        scheduler.step(x, scheduler.timesteps[0], x, generator=seed)
